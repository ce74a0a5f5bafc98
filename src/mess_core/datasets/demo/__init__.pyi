from .corpus import (
    DemoDataset as DemoDataset,
    DemoRecording as DemoRecording,
    demo_recordings as demo_recordings,
    make_demo_corpus as make_demo_corpus,
)
from .performance import (
    INTERPRETATIONS as INTERPRETATIONS,
    Interpretation as Interpretation,
    Performance as Performance,
    beat_times as beat_times,
    interpret as interpret,
    perform as perform,
    to_midi as to_midi,
)
from .pieces import SCORES as SCORES, Score as Score
