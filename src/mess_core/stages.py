"""Version numbers of the stages: a stage's number goes up when its output changes.

Snakemake does not see changes inside an imported library, so every rule carries its stage's number
in its params, and every stored array's fingerprint contains it. A golden test per stage fails when
the output changed and the number did not.
"""

__all__ = [
    "ALIGNMENTS",
    "ASPECTS",
    "COUNTERFACTUALS",
    "DECOMPOSITION",
    "DEMO",
    "DESCRIPTORS",
    "EVALUATION",
    "FEATURES",
    "GEOMETRY",
    "INDEX",
    "LANDMARKS",
    "PERFORMANCES",
    "PROBING",
    "PROJECTION",
    "PUBLISH",
    "QUESTIONS",
    "RECORDINGS",
    "REPORT",
    "TARGETS",
    "TRAINING",
    "UNTRAINED",
    "VALIDITY",
]

DEMO = 1
RECORDINGS = 4
UNTRAINED = 1
DESCRIPTORS = 1
FEATURES = 3
TARGETS = 4
ALIGNMENTS = 1
PERFORMANCES = 1
PROBING = 4
DECOMPOSITION = 2
ASPECTS = 6
QUESTIONS = 4
GEOMETRY = 1
PROJECTION = 2
INDEX = 5
PUBLISH = 2
EVALUATION = 2
COUNTERFACTUALS = 1
TRAINING = 1
VALIDITY = 4
REPORT = 5
LANDMARKS = 1
