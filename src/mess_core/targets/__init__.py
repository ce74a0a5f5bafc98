"""Proxy targets: numbers and curves that say how music sounds and is played.

`registry` lists them and imports nothing heavy. `sound` and `notes` turn audio and MIDI into plain
series; one module per musical family (`rhythm`, `harmony`, `timbre`, `articulation`, `dynamics`,
`phrasing`, `expression`) turns the series into targets; `create` runs all of them over recordings;
`npz` keeps them on disk.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
