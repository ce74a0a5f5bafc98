"""What each layer of the encoder knows: ridge probes, the aspect map, and a look inside a model."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
