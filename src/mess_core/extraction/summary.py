"""What a run of extraction did, for people and for programs."""

__all__ = ["ExtractionSummary"]

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mess_core.errors import AudioError


@dataclass(frozen=True)
class ExtractionSummary:
    """The outcome of one run.

    Attributes
    ----------
    stored : mapping of str to mapping of str to str
        For every recording that is there now and each of its views, the name in the store of what
        its file is a copy of: its fingerprint, and the first 16 digits of its SHA-256.
    computed, kept : sequence of str
        Recordings that the model ran on, and those that were in the store.
    failed : mapping of str to str
        Recordings without features, with the causes.
    audio_s : float
        Length of the computed recordings in seconds.
    windows : int
        Windows that the model ran on.
    seconds : float
        Wall time of the run.
    inference_s : float
        Part of it in which the model ran.
    encoder : str
        What ran where.
    batch_size : int
        The smallest that memory made necessary.
    """

    stored: Mapping[str, Mapping[str, str]]
    computed: Sequence[str]
    kept: Sequence[str]
    failed: Mapping[str, str]
    audio_s: float
    windows: int
    seconds: float
    inference_s: float
    encoder: str
    batch_size: int

    def lines(self) -> list[str]:
        """Return the outcome as lines to print."""
        rate = self.audio_s / self.seconds if self.seconds else 0.0
        share = self.inference_s / self.seconds if self.seconds else 0.0
        lines = [
            f"{len(self.computed)} recordings computed, {len(self.kept)} kept, "
            f"{len(self.failed)} failed"
        ]
        if self.computed:
            lines.append(
                f"{self.audio_s:.0f} s of audio ({self.windows} windows) in {self.seconds:.1f} s: "
                f"{rate:.1f} s of audio per second, {share:.0%} of the time in the model"
            )
        return lines + [f"  {name}: {cause}" for name, cause in self.failed.items()]

    def facts(self) -> dict[str, Any]:
        """Return the outcome as JSON holds it."""
        return asdict(self)

    def check(self) -> None:
        """Raise an AudioError that names every recording that failed, if any did."""
        if self.failed:
            total = len(self.failed) + len(self.stored)
            causes = "\n  ".join(f"{name}: {cause}" for name, cause in self.failed.items())
            raise AudioError(
                f"{len(self.failed)} of {total} recordings failed; the rest is stored:\n  {causes}"
            )
