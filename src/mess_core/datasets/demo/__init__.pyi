from .catalogue import DemoRecording as DemoRecording, demo_recordings as demo_recordings
from .corpus import make_demo_corpus as make_demo_corpus
from .interpretation import (
    INTERPRETATIONS as INTERPRETATIONS,
    Interpretation as Interpretation,
    interpret as interpret,
)
from .loader import DemoDataset as DemoDataset
from .performance import (
    Performance as Performance,
    beat_times as beat_times,
    perform as perform,
    to_midi as to_midi,
)
from .pieces import SCORES as SCORES, Score as Score
