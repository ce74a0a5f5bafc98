"""What the demo corpus holds, known without rendering any of it."""

__all__ = ["DemoRecording", "demo_recordings"]

from dataclasses import dataclass

from mess_core.datasets.demo.interpretation import INTERPRETATIONS, Interpretation, interpret
from mess_core.datasets.demo.pieces import SCORES, Score


@dataclass(frozen=True)
class DemoRecording:
    """One work in one interpretation.

    Attributes
    ----------
    score : Score
        What is played.
    performer : str
        The name of the interpretation.
    interpretation : Interpretation
        How it is played, in numbers.
    """

    score: Score
    performer: str
    interpretation: Interpretation

    @property
    def recording_id(self) -> str:
        """``{work_id}_{performer}``, safe as a file name."""
        return f"{self.score.work_id}_{self.performer}"

    @property
    def work_id(self) -> str:
        """The work's id."""
        return self.score.work_id

    @property
    def composer(self) -> str:
        """The composer's full name."""
        return self.score.composer

    @property
    def title(self) -> str:
        """Title, catalogue number and bars."""
        return self.score.title

    @property
    def split(self) -> str:
        """Empty: the demo corpus has no splits."""
        return ""


def demo_recordings() -> list[DemoRecording]:
    """Return all recordings of the demo corpus, in the order of ``recording_id``."""
    recordings = [
        DemoRecording(score, name, interpret(name, score.work_id))
        for score in SCORES
        for name in INTERPRETATIONS
    ]
    return sorted(recordings, key=lambda recording: recording.recording_id)
