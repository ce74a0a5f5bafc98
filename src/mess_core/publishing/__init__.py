"""Publishing: artifacts in a folder or S3 under a pointer, and fetching them."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
