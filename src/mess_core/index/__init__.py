"""The index: stored vectors of recordings and passages, saved as an artifact named by its hash."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
