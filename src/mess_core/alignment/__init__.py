"""Performances of one work on one time axis, and what comparing them tells."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
