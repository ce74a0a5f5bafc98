"""The demo corpus: public-domain keyboard scores, performed in six known ways and rendered."""

from mess_core._lazy import attach

__all__, __getattr__, __dir__ = attach(
    __name__,
    {
        "catalogue": ["DemoRecording", "demo_recordings"],
        "corpus": ["make_demo_corpus"],
        "dataset": ["DemoDataset"],
        "interpretation": ["INTERPRETATIONS", "Interpretation", "interpret"],
        "performance": ["Performance", "beat_times", "perform", "to_midi"],
        "scores": ["SCORES", "Score"],
    },
)
