"""The demo corpus: public-domain keyboard scores, performed in six known ways and rendered."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
