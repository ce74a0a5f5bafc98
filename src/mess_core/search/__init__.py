"""Search: which other recordings or passages sound like this one, and in what respect."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
