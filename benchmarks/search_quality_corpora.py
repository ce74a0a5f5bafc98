"""Music to judge searches by: which passages are the same is known, or how they are played.

* ``demo``: the demo corpus. Beats are known.
* ``asap``: the works of ../shared/data/asap that most pianists play, from the first note to the
  beat that the slowest reaches in `HEARD_S`, rendered. The n-th beat of a performance is the n-th
  beat of its score.
* ``planted``: the demo scores, with every combination of three tempos, three articulations and
  three strengths of dynamics, all else the same.

A corpus is a dataset in a data folder of its own. What is there and belongs to the same plan is
kept, so that a second run is quick.
"""

import csv
import io
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import mido
import numpy as np
import numpy.typing as npt

from mess_core import stages
from mess_core.datasets import TableDataset, scan_dataset
from mess_core.datasets.demo import SCORES, Interpretation, perform, to_midi
from mess_core.datasets.demo.performance import beats_to_tsv
from mess_core.datasets.render import render_midi_file
from mess_core.extraction.specs import DEMO_ENCODER
from mess_core.extraction.storage import load_features, segment_times
from mess_core.files import fingerprint, read_json, write_bytes, write_json, write_text
from mess_core.index.factory import EXACT_UP_TO, MEMORY_GB
from mess_core.layout import ENCODER
from mess_core.probing.aspects import ASPECT_REGISTRY
from mess_core.probing.folds import deal_folds
from mess_core.probing.ridge import ALPHAS
from mess_core.recordings import Recording, write_recordings
from mess_core.targets.npz import load_target
from mess_core.targets.registry import probed_targets
from mess_core.workflow import jobs
from mess_core.workflow.config import Settings
from mess_core.workflow.plan import Plan

Floats = npt.NDArray[np.float64]

RATE = 24_000
DEMO, ASAP, PLANTED = "demo", "asap", "planted"

#: Pianists of a work of ASAP; how much of a performance is heard, and the silence before it, s.
PIANISTS, HEARD_S, LEAD_IN_S = 5, 60.0, 0.25

#: The parameters of an interpretation that each planted variant sets, by aspect and dose. Without
#: pedal: under it a key's release is not heard, and nothing could be found.
DOSES: dict[str, tuple[dict[str, float], ...]] = {
    "tempo": tuple({"tempo": value} for value in (0.8, 1.0, 1.2)),
    "legato": tuple({"articulation": value} for value in (0.5, 0.8, 1.1)),
    "dynamics": tuple(
        {"level": level, "dynamic_range": spread}
        for level, spread in ((48.0, 18.0), (60.0, 36.0), (72.0, 54.0))
    ),
}
UNPEDALLED = Interpretation(
    tempo=1.0,
    rubato=0.2,
    level=60.0,
    dynamic_range=36.0,
    articulation=0.8,
    pedal=0.0,
    melody_lead_ms=20.0,
    chord_spread_ms=20.0,
)

_TICKS_PER_BEAT, _TICKS_PER_SECOND = 1000, 2000
_PEDAL = 64


@dataclass(frozen=True)
class Piece:
    """A performance to be rendered: the fields of the recording table, MIDI, and beats as TSV."""

    recording_id: str
    work_id: str
    performer: str
    composer: str
    midi: bytes
    beats: str


class Span(NamedTuple):
    """A passage of a score, from beat to beat."""

    work_id: str
    start: float
    end: float


@dataclass(frozen=True)
class Clips:
    """All windows of some recordings, in the order of the recording table.

    Attributes
    ----------
    recordings : tuple of Recording
        The recording of each of n windows.
    starts_s : tuple of float
        Where each begins.
    features : ndarray of float32 [shape=(n, L, D)]
        Raw features.
    """

    recordings: tuple[Recording, ...]
    starts_s: tuple[float, ...]
    features: npt.NDArray[np.float32]

    @cached_property
    def works(self) -> list[str]:
        """The work of each window."""
        return [recording.work_id for recording in self.recordings]

    @cached_property
    def names(self) -> list[str]:
        """The recording's id of each window."""
        return [recording.recording_id for recording in self.recordings]

    @cached_property
    def work_numbers(self) -> npt.NDArray[np.int64]:
        """A number for the work of each window."""
        return np.asarray(np.unique(self.works, return_inverse=True)[1], np.int64)

    @cached_property
    def numbers(self) -> npt.NDArray[np.int64]:
        """A number for the recording of each window."""
        return np.asarray(np.unique(self.names, return_inverse=True)[1], np.int64)

    def of(self, rows: Sequence[int] | npt.NDArray[np.int64]) -> "Clips":
        """Return some of the windows."""
        return Clips(
            tuple(self.recordings[row] for row in rows),
            tuple(self.starts_s[row] for row in rows),
            self.features[np.asarray(rows)],
        )


def window_targets() -> tuple[str, ...]:
    """Return the targets of windows that aspects are made of."""
    wanted = {name for aspect in ASPECT_REGISTRY.values() for name in aspect.targets}
    return tuple(name for name in probed_targets("window") if name in wanted)


def settings_of(dataset: str, data: Path) -> Settings:
    """Return the configuration of a corpus: the bundled encoder, the demo's defaults."""
    return Settings(
        dataset=dataset,
        data=data,
        encoder=DEMO_ENCODER,
        device="cpu",
        batch_size=0,
        precision="float32",
        window_s=5.0,
        overlap=0.5,
        save_raw=False,
        raw_dtype="float32",
        shards=1,
        targets=window_targets(),
        rows="windows",
        n_folds=5,
        alphas=tuple(ALPHAS),
        baselines=(),
        exact_up_to=EXACT_UP_TO,
        memory_gb=MEMORY_GB,
        min_r2=0.1,
        destination=str(data / "published"),
        tracking_uri="",
        tracking_experiment="mess",
    )


def planted_pieces(works: int | None = None) -> list[Piece]:
    """Play the demo scores in all combinations of doses."""
    return [
        _planted(work, doses)
        for work in range(len(SCORES[:works]))
        for doses in product(*(range(len(steps)) for steps in DOSES.values()))
    ]


def _planted(work: int, doses: Sequence[int]) -> Piece:
    score = SCORES[work]
    performance = perform(score, planted_interpretation(doses))
    name = "".join(f"{aspect[0]}{dose}" for aspect, dose in zip(DOSES, doses, strict=True))
    midi, beats = to_midi(performance), beats_to_tsv(performance.beats)
    return Piece(f"{score.work_id}_{name}", score.work_id, name, score.composer, midi, beats)


def planted_interpretation(doses: Sequence[int]) -> Interpretation:
    """Return the interpretation with a dose of each aspect, in their order."""
    changed: dict[str, Any] = {
        name: value
        for steps, dose in zip(DOSES.values(), doses, strict=True)
        for name, value in steps[dose].items()
    }
    interpretation: Interpretation = replace(UNPEDALLED, **changed)
    return interpretation


def planted_doses(recording: Recording) -> dict[str, int]:
    """Return the dose of each aspect that a planted recording was played with."""
    return {
        aspect: int(dose) for aspect, dose in zip(DOSES, recording.performer[1::2], strict=True)
    }


def asap_pieces(asap: Path, *, works: int | None = None) -> list[Piece]:
    """Cut the performances of the works that enough pianists play, all at the same beat.

    Performances whose beats are not those of the score are left out.
    """
    with (asap / "recordings.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    found: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in rows:
        if len(beat_times(asap / row["beats"])) == len(beat_times(asap / row["score_beats"])):
            found[row["work_id"]].append(row)
    enough = [work for work in sorted(found) if len(found[work]) >= PIANISTS][:works]
    return [piece for work in enough for piece in _cut_work(asap, found[work])]


def _cut_work(asap: Path, rows: Sequence[dict[str, str]]) -> Iterator[Piece]:
    midis = [asap / row["midi"] for row in rows]
    begins = [max(0.0, first_note(midi) - LEAD_IN_S) for midi in midis]
    beats = [beat_times(asap / row["beats"]) for row in rows]
    reached = min(
        int((times <= begin + HEARD_S).sum()) for times, begin in zip(beats, begins, strict=True)
    )
    for row, midi, begin, times in zip(rows, midis, begins, beats, strict=True):
        heard = np.maximum(times[:reached] - begin, 0.0).tolist()
        yield Piece(
            row["recording_id"],
            row["work_id"],
            row["performer"],
            row["composer"],
            cut_midi(midi, begin, float(times[reached - 1])),
            "".join(f"{time:.6f}\t{time:.6f}\tb\n" for time in heard),
        )


def first_note(path: Path) -> float:
    """Return when the first key of a MIDI file goes down, s."""
    now = 0.0
    for message in mido.MidiFile(path):
        now += message.time
        if message.type == "note_on" and message.velocity:
            return float(now)
    raise ValueError(f"{path} holds no notes")


def beat_times(path: Path) -> Floats:
    """Return the times of a file of beats, s."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return np.array([float(line.split("\t")[0]) for line in lines])


def cut_midi(path: Path, start_s: float, end_s: float) -> bytes:
    """Return a part of a MIDI file; at its end all keys and the pedal go up.

    What comes before the start, as controllers do, comes at the start.
    """
    track, written, now = mido.MidiTrack(), 0, 0.0
    down: dict[tuple[int, int], None] = {}
    for message in mido.MidiFile(path):
        now += message.time
        if now >= end_s:
            break
        if message.is_meta:
            continue
        tick = _tick(max(now, start_s) - start_s)
        track.append(message.copy(time=tick - written))
        written = tick
        if message.type in ("note_on", "note_off"):
            key = message.channel, message.note
            down.pop(key, None)
            down |= {key: None} if message.type == "note_on" and message.velocity else {}
    rest = _tick(end_s - start_s) - written
    track.append(mido.Message("control_change", control=_PEDAL, value=0, time=rest))
    track += [mido.Message("note_off", channel=channel, note=note) for channel, note in down]
    buffer = io.BytesIO()
    mido.MidiFile(type=0, ticks_per_beat=_TICKS_PER_BEAT, tracks=[track]).save(file=buffer)
    return buffer.getvalue()


def _tick(time_s: float) -> int:
    return round(time_s * _TICKS_PER_SECOND)


def render_pieces(pieces: Iterable[Piece], settings: Settings) -> None:
    """Write a corpus's audio, MIDI and beats and scan it; audio of the same MIDI is kept."""
    pieces = list(pieces)
    folder = settings.data / "audio" / settings.dataset
    folder.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        list(pool.map(_render, [(piece, folder) for piece in pieces]))
    columns = ("recording_id", "work_id", "performer", "composer")
    lines = ["\t".join((*columns, "audio", "midi", "beats"))]
    for piece in pieces:
        files = (f"{piece.recording_id}{suffix}" for suffix in (".wav", ".mid", ".tsv"))
        lines.append("\t".join((*(getattr(piece, name) for name in columns), *files)))
    table = folder / "table.tsv"
    write_text(table, "".join(f"{line}\n" for line in lines))
    print(scan_dataset(TableDataset(settings.dataset, table), settings.layout).summary())


def _render(job: tuple[Piece, Path]) -> None:
    piece, folder = job
    midi, audio, beats = (
        folder / f"{piece.recording_id}{suffix}" for suffix in (".mid", ".wav", ".tsv")
    )
    if not (audio.exists() and midi.exists() and midi.read_bytes() == piece.midi):
        audio.unlink(missing_ok=True)
        write_bytes(midi, piece.midi)
        render_midi_file(midi, audio, sample_rate=RATE)
    if not beats.exists() or beats.read_text(encoding="utf-8") != piece.beats:
        write_text(beats, piece.beats)


def extract_and_measure(settings: Settings) -> None:
    """Make the features and targets of a scanned corpus that are not there."""
    plan = Plan.read(settings)
    (shard,) = plan.shards
    if not plan.has_features:
        jobs.extract_shard(settings, shard, threads=2)
        jobs.gather_features(settings)
    if plan.ungathered:
        jobs.measure_shard(settings, shard)
        jobs.gather_targets(settings)


def fit_all(settings: Settings) -> None:
    """Probe a corpus and resolve aspects, where this was not done; fit the projection anew."""
    plan, layout = Plan.read(settings), settings.layout
    done = fingerprint(
        {
            "stages": [stages.DECOMPOSITION, stages.PROBING, stages.ASPECTS],
            "features": plan.features_digest,
            "targets": [plan.target_digest(name) for name in settings.targets],
            "min_r2": settings.min_r2,
        }
    )
    receipt = layout.probing / "search_quality.json"
    if not receipt.exists() or read_json(receipt)["done"] != done:
        _probe(settings)
        write_json(receipt, {"done": done})
    jobs.fit_projection(settings, "clips")


def _probe(settings: Settings) -> None:
    jobs.decompose(settings, ENCODER)
    for target in settings.targets:
        jobs.probe_target(settings, target)
    jobs.map_aspects(settings)


def without(settings: Settings, fold: int, folds: dict[str, int]) -> Settings:
    """Make the dataset of all works that are not in a fold: what is fitted never sees the others.

    Parameters
    ----------
    settings : Settings
        A corpus that was extracted and measured.
    fold : int
        The fold that is left out.
    folds : dict of str to int
        The fold of each work.
    """
    part = replace(settings, dataset=f"{settings.dataset}-{fold}")
    kept = [r for r in Plan.read(settings).recordings if folds[r.work_id] != fold]
    write_recordings(part.layout.table, kept)
    return part


def folds_of(recordings: Sequence[Recording], n_folds: int) -> dict[str, int]:
    """Return the fold of each work."""
    works = [recording.work_id for recording in recordings]
    return dict(zip(works, deal_folds(works, n_folds).tolist(), strict=True))


def load_clips(settings: Settings) -> Clips:
    """Load all windows of a corpus."""
    recordings, starts, features = [], [], []
    for recording in Plan.read(settings).recordings:
        windows = load_features(settings.layout, recording.recording_id, view="segments")
        features.append(windows)
        recordings += [recording] * len(windows)
        starts += segment_times(
            len(windows),
            duration_s=recording.duration_s,
            window_s=settings.window_s,
            overlap=settings.overlap,
        ).tolist()
    return Clips(tuple(recordings), tuple(starts), np.concatenate(features))


def spans_of(clips: Clips, window_s: float) -> list[Span]:
    """Return the passage of the score that each window holds, in beats from the first one.

    What sounds before the first beat and after the last is of no length.
    """
    beats = {r.recording_id: beat_times(Path(r.beats)) for r in clips.recordings}
    spans = []
    for recording, start in zip(clips.recordings, clips.starts_s, strict=True):
        times = beats[recording.recording_id]
        ends = np.interp([start, start + window_s], times, np.arange(len(times)))
        spans.append(Span(recording.work_id, *ends.tolist()))
    return spans


def same_passage(query: Span, spans: Sequence[Span]) -> npt.NDArray[np.bool_]:
    """Say which passages share at least half of the shorter of the two with a query's."""
    starts, ends = np.array([span[1:] for span in spans]).T
    shared = np.minimum(ends, query.end) - np.maximum(starts, query.start)
    shorter = np.minimum(ends - starts, query.end - query.start)
    of_work = np.array([span.work_id == query.work_id for span in spans])
    return np.asarray(of_work & (shorter > 0) & (shared >= shorter / 2))


def measured(settings: Settings, names: Sequence[str], targets: Iterable[str]) -> Floats:
    """Return the targets that were measured of windows, in standard deviations of them all.

    Parameters
    ----------
    settings : Settings
        A corpus that was measured.
    names : sequence of str
        The recording's id of each of n windows, each recording's together and complete.
    targets : iterable of str
        Names of q numbers together; shapes have several.

    Returns
    -------
    ndarray of float64 [shape=(n, q)]
        Undefined is NaN.
    """
    columns = [_target(settings, list(dict.fromkeys(names)), name) for name in targets]
    values: Floats = np.concatenate(columns, axis=1)
    if len(values) != len(names):
        raise ValueError(f"{len(values)} windows were measured, {len(names)} are asked for")
    spread = np.nanstd(values, axis=0)
    return np.asarray((values - np.nanmean(values, axis=0)) / np.where(spread > 0, spread, 1.0))


def _target(settings: Settings, recordings: Sequence[str], name: str) -> Floats:
    blocks = []
    for recording in recordings:
        found = load_target(settings.layout.targets(recording), name, level="window")
        if found is None:
            raise ValueError(f"{recording} has no {name}: it has no MIDI")
        blocks.append(found.reshape(len(found), -1))
    return np.concatenate(blocks)
