"""MESS: find music that sounds and is played alike.

The names here are those that most people need; everything else is in the package of its stage:
`datasets`, `extraction`, `targets`, `probing`, `artifacts`, `search`. Importing this package
imports nothing heavy: a name's module is loaded when the name is used.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
