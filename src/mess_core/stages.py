"""Version numbers of the stages: a stage's number goes up when its output changes.

Snakemake does not see changes inside an imported library, so every rule carries its stage's number
in its params, and every stored array's fingerprint contains it. A golden test per stage fails when
the output changed and the number did not.
"""

__all__ = ["ASPECTS", "DEMO", "FEATURES", "INDEX", "PROBING", "PUBLISH", "RECORDINGS", "TARGETS"]

DEMO = 1
RECORDINGS = 2
FEATURES = 2
TARGETS = 1
PROBING = 1
ASPECTS = 1
INDEX = 1
PUBLISH = 1
