"""Datasets: which recordings there are, and scanning them into the recording table."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
