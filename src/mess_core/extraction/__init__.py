"""Audio in, MERT features out: decoding, windows, the encoder, storage and the pipeline."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
