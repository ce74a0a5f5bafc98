"""Evaluation: what spaces of features know of playing, and how good answers are."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
