"""The search service: an HTTP API over the published index, and a page to search by ear."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
