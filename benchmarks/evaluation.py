"""Spaces side by side on real performances: ``make bench-evaluation``, or

    python -m benchmarks.evaluation --shared ../shared/data --soundfont PIANO.sf2 mess-small ...

*ASAP*: the works that are kept aside (an odd hash of their name: no constant is chosen on them),
of each up to five players, the first 40 s, rendered. Truth is their MIDI. *PercePiano*: the Schubert
clips, rendered, and what listeners said of them. Spaces are encoders by name or folder; ``a+b`` joins
two; `mess_core.evaluation.judges` says what the figures are. Audio and features are kept in ``--work``.
"""

import argparse
import csv
import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import mido
import numpy as np
import numpy.typing as npt
import soundfile

from mess_core.datasets.render import render_midi
from mess_core.errors import MessError
from mess_core.evaluation.judges import (
    Figure,
    Rows,
    cosine,
    general,
    same_passage,
    triplets,
    within_works,
)
from mess_core.extraction.audio import load_audio
from mess_core.extraction.extractor import FeatureExtractor
from mess_core.files import atomic_path, write_text
from mess_core.targets.create import measure_windows
from mess_core.targets.notes import read_performance

Features = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]

#: Of each performance the first so many seconds; of each work at most so many performances.
EXCERPT_S, PLAYERS = 40.0, 5
SAMPLE_RATE, WINDOW_S, HOP_S = 24_000, 5.0, 2.5
#: The targets that are the truth, and their short names.
TRUTH = {
    "velocity_mean": "velocity",
    "velocity_std": "velocity SD",
    "note_rate": "density",
    "chord_rate": "chord rate",
    "performed_tempo_level": "tempo",
    "rubato": "rubato",
    "held": "held",
    "articulation_ratio": "articulation",
    "pedal_share": "pedal",
    "chord_spread": "chord spread",
}
#: Ratios, whose logarithm is compared.
LOGARITHMIC = ("note_rate", "chord_rate", "performed_tempo_level")
#: PercePiano's passages with more clips than the few that all have; listeners' halves; scales that
#: listeners agree on (reliability of a mean above this within Beethoven's passages).
CLIPS, HALVES, RELIABLE = 10, 10, 0.5


class Excerpt(NamedTuple):
    """A rendered excerpt."""

    name: str
    work: str
    performer: str
    midi: Path
    beats: Path
    audio: Path


def kept_aside(work: str) -> bool:
    """Say whether a work is one of those on which nothing is chosen."""
    return bool(int(hashlib.sha256(work.encode()).hexdigest(), 16) % 2)


def render_excerpts(
    asap: Path, folder: Path, soundfont: Path | None, *, kept: bool = True
) -> list[Excerpt]:
    """Render what is not there yet, and write ``recordings.tsv``."""
    of_work: dict[str, list[dict[str, str]]] = defaultdict(list)
    with (asap / "recordings.tsv").open(encoding="utf-8") as table:
        for row in csv.DictReader(table, delimiter="\t"):
            if kept_aside(row["work_id"]) == kept:
                of_work[row["work_id"]].append(row)
    excerpts = []
    for row in (row for rows in of_work.values() for row in rows[:PLAYERS]):
        name = row["recording_id"]
        midi, beats, audio = (
            folder / kind / f"{name}.{suffix}"
            for kind, suffix in (("midi", "mid"), ("beats", "tsv"), ("audio", "wav"))
        )
        excerpts.append(Excerpt(name, row["work_id"], row["performer"], midi, beats, audio))
        if not beats.exists():
            write_text(beats, "".join(_beats(asap / row["beats"])))
        render(asap / row["midi"], midi, audio, soundfont)
    head = "recording_id\twork_id\tperformer\tmidi\tbeats\taudio\n"
    lines = ("\t".join(map(str, excerpt)) + "\n" for excerpt in excerpts)
    write_text(folder / "recordings.tsv", head + "".join(lines))
    return excerpts


def _beats(path: Path) -> Iterator[str]:
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if float(line.split("\t")[0]) < EXCERPT_S:
            yield line


def render(whole: Path, midi: Path, audio: Path, soundfont: Path | None) -> None:
    """Write the MIDI and the audio of an excerpt, of at least a window."""
    for path in (midi, audio):
        path.parent.mkdir(parents=True, exist_ok=True)
    if audio.exists():
        return
    cut_midi(whole, midi)
    samples = render_midi(midi, sample_rate=SAMPLE_RATE, soundfont=soundfont).mean(axis=1)
    samples = np.pad(samples, (0, max(0, round(WINDOW_S * SAMPLE_RATE) - len(samples))))
    with atomic_path(audio) as temporary:
        soundfile.write(
            temporary, samples[: round(EXCERPT_S * SAMPLE_RATE)], SAMPLE_RATE, format="WAV"
        )


def cut_midi(whole: Path, part: Path) -> None:
    """Keep what happens in the first `EXCERPT_S`; keys that are down then stay so for a second."""
    track = mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=1_000_000)])
    now, last, down = 0.0, 0, set[int]()
    for message in mido.MidiFile(whole):
        now += message.time
        if now >= EXCERPT_S:
            break
        if message.type in ("note_on", "note_off"):
            struck = message.type == "note_on" and message.velocity > 0
            (down.add if struck else down.discard)(message.note)
        elif message.type != "control_change":
            continue
        tick = round(now * 1000)
        track.append(message.copy(time=tick - last, channel=0))
        last = tick
    for number, note in enumerate(sorted(down)):
        wait = 0 if number else round((EXCERPT_S + 1) * 1000) - last
        track.append(mido.Message("note_off", note=note, time=wait))
    mido.MidiFile(ticks_per_beat=1000, tracks=[track]).save(part)


def measure_truth(excerpt: Excerpt, starts: Floats) -> dict[str, Floats]:
    """Return what MIDI says of the windows of an excerpt, by the names of `TRUTH`."""
    performance = read_performance(excerpt.midi, beats=excerpt.beats)
    targets = measure_windows(performance, starts, window_s=WINDOW_S)
    found = {name: values for fields in targets.values() for name, values in fields.items()}
    parts = [performance.cut(t, t + WINDOW_S) for t in starts]
    lengths = [part.releases - part.onsets for part in parts]
    found["held"] = np.array([np.log(s.mean()) if len(s) > 4 else np.nan for s in lengths])
    return {name: np.log(found[name]) if name in LOGARITHMIC else found[name] for name in TRUTH}


def extract(
    space: str, audio: Mapping[str, Path], folder: Path, *, overlap: float
) -> dict[str, Features]:
    """Return the features [windows, L, D] of recordings, each made once."""
    if "+" in space:
        parts = [extract(part, audio, folder, overlap=overlap) for part in space.split("+")]
        return {name: join([part[name] for part in parts]) for name in audio}
    place = folder / space.replace("/", "_")
    place.mkdir(parents=True, exist_ok=True)
    extractor = None
    found = {}
    for name, path in audio.items():
        stored = place / f"{name}.npy"
        if not stored.exists():
            extractor = extractor or FeatureExtractor(space, overlap=overlap)
            rate = extractor.encoder.spec.sample_rate
            made = extractor.extract(load_audio(path, sample_rate=rate)).segments
            with atomic_path(stored) as temporary, temporary.open("wb") as file:
                np.save(file, made)
        found[name] = np.load(stored)
    return found


def join(parts: Sequence[Features]) -> Features:
    """Put the layers of several spaces under each other, as wide as the widest."""
    width = max(part.shape[-1] for part in parts)
    padded = [np.pad(p, ((0, 0), (0, 0), (0, width - p.shape[-1]))) for p in parts]
    return np.concatenate(padded, axis=1)


def judge_performances(
    spaces: Sequence[str], excerpts: Sequence[Excerpt], work: Path
) -> dict[str, dict[str, Figure]]:
    """Return every space's figures, by name, on rendered performances."""
    starts = np.arange(0, EXCERPT_S - WINDOW_S + HOP_S / 2, HOP_S)
    truths = [measure_truth(excerpt, starts) for excerpt in excerpts]
    truth = {name: np.concatenate([each[name] for each in truths]) for name in TRUTH}
    spans = np.concatenate([_spans(excerpt.beats, starts) for excerpt in excerpts])
    columns = zip(*((e.name, e.work, e.performer) for e in excerpts), strict=True)
    rows = Rows(*(np.repeat(np.array(column), len(starts)) for column in columns))
    noise = np.random.default_rng(0)
    found = {"chance": same_passage(lambda _: noise.random(len(spans)), rows, spans)}
    for space, blocks in _extracted(spaces, {e.name: e.audio for e in excerpts}, work, 0.5):
        features = np.concatenate(blocks)
        found[space] = {
            **{TRUTH[n]: within_works(features, truth[n], rows, name=n) for n in TRUTH},
            **same_passage(general(features), rows, spans),
            "cosine": same_passage(cosine(features), rows, spans)["MRR"],
        }
        print(space, found[space], flush=True)
    return found


def _spans(beats: Path, starts: Floats) -> Floats:
    times = np.loadtxt(beats, usecols=0, ndmin=1)
    return np.interp(np.column_stack([starts, starts + WINDOW_S]), times, np.arange(len(times)))


def _extracted(
    spaces: Sequence[str], audio: Mapping[str, Path], work: Path, overlap: float
) -> Iterator[tuple[str, list[Features]]]:
    for space in spaces:
        try:
            yield space, list(extract(space, audio, work, overlap=overlap).values())
        except MessError as error:
            print(f"{space} is left out: {error}")


def judge_listeners(
    spaces: Sequence[str], percepiano: Path, folder: Path, work: Path, soundfont: Path | None
) -> dict[str, Figure]:
    """Return how far every space's distances agree with listeners', and listeners with each other."""
    ratings = read_ratings(percepiano / "ratings.csv")
    chosen = _passages(ratings, "Beethoven")
    scales = reliability(ratings, chosen) >= RELIABLE
    clips = _passages(ratings, "Schubert")
    rng, names, groups = np.random.default_rng(0), list(clips), np.array(list(clips.values()))
    heard = apart(np.array([np.nanmean(ratings[n], axis=0)[scales] for n in names]))
    halves = [halve(ratings, names, rng)[:, :, scales] for _ in range(HALVES)]
    own = [triplets(apart(a), apart(b), groups) for a, b in halves]
    value = float(np.mean([figure.value for figure in own]))
    found = {"listeners, half by half": Figure(value, None, 0.5, own[0].n, own[0].works)}
    audio = {name: folder / "audio" / f"{name}.wav" for name in names}
    for name, path in audio.items():
        render(
            percepiano / "midi" / f"{name}.mid", folder / "midi" / f"{name}.mid", path, soundfont
        )
    for space, blocks in _extracted(spaces, audio, work, 0.0):
        features = np.array([block.mean(axis=0) for block in blocks])
        search = general(features)
        distances = -np.array([search(row) for row in range(len(features))])
        found[space] = triplets(distances, heard, groups)
    return found


def read_ratings(path: Path) -> dict[str, Floats]:
    """Return every clip's ratings [raters, 19], each rater's mean taken away; NaN where none."""
    with path.open(encoding="utf-8") as table:
        rows = list(csv.DictReader(table))
    values = np.array([[float(row[f"s{n:02}"] or 0) for n in range(1, 20)] for row in rows])
    values[(values < 1) | (values > 7)] = np.nan
    raters, clips = (np.array([row[column] for row in rows]) for column in ("rater", "clip"))
    for rater in np.unique(raters):
        values[raters == rater] -= np.nanmean(values[raters == rater])
    return {clip: values[clips == clip] for clip in np.unique(clips).tolist()}


def _passages(ratings: Mapping[str, Any], work: str) -> dict[str, str]:
    """Return the passage of every clip of a work, of passages that many have played."""
    found = {n: "_".join(n.rsplit("_", 2)[::2]) for n in ratings if n.startswith(work)}
    return {n: p for n, p in found.items() if list(found.values()).count(p) >= CLIPS}


def apart(values: Floats) -> Floats:
    """Return distances [n, n] of values [n, q], each in its standard deviations."""
    scaled = values / np.nanstd(values, axis=0)
    return np.asarray(np.linalg.norm(scaled[:, np.newaxis] - scaled, axis=2))


def halve(ratings: Mapping[str, Floats], names: Sequence[str], rng: np.random.Generator) -> Floats:
    """Return mean ratings [2, n, 19] of clips by two halves of those who rated each."""
    halves = []
    for name in names:
        order = rng.permutation(len(ratings[name]))
        halves.append([np.nanmean(ratings[name][order[part::2]], axis=0) for part in (0, 1)])
    return np.array(halves).swapaxes(0, 1)


def reliability(ratings: Mapping[str, Floats], passages: Mapping[str, str]) -> Floats:
    """Return how reliable each scale's mean is within passages [19] (Spearman and Brown)."""
    rng, names = np.random.default_rng(1), list(passages)
    of = np.unique(list(passages.values()), return_inverse=True)[1]
    found = []
    for _ in range(HALVES):
        halves = halve(ratings, names, rng)
        means = np.array([[np.nanmean(h[of == g], axis=0) for g in of] for h in halves])
        a, b = halves - means
        r = np.nansum(a * b, axis=0) / np.sqrt(np.nansum(a**2, axis=0) * np.nansum(b**2, axis=0))
        found.append(2 * r / (1 + r))
    return np.asarray(np.mean(found, axis=0))


def table(found: Mapping[str, Mapping[str, Figure]]) -> str:
    """Return figures with their intervals as a table in Markdown, a line per space."""
    columns = list(dict.fromkeys(name for figures in found.values() for name in figures))
    lines = [f"| space | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for space, figures in found.items():
        cells = []
        for figure in map(figures.get, columns):
            reach = figure and figure.interval
            told = f"{figure.value:.2f}" if figure else ""
            cells.append(told + (f" ({reach[0]:.2f} to {reach[1]:.2f})" if reach else ""))
        lines.append(f"| {space} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evaluation")
    parser.add_argument("spaces", nargs="+")
    parser.add_argument("--shared", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, default=Path("data/evaluation"))
    parser.add_argument("--soundfont", type=Path, help=".sf2; default: the one in pretty_midi")
    args = parser.parse_args()
    work = args.work / (args.soundfont.stem if args.soundfont else "default")
    excerpts = render_excerpts(args.shared / "asap", work / "asap", args.soundfont)
    played = judge_performances(args.spaces, excerpts, work / "features")
    heard = judge_listeners(
        args.spaces,
        args.shared / "percepiano",
        work / "percepiano",
        work / "features-percepiano",
        args.soundfont,
    )
    print(table(played))
    print(table({space: {"listeners' triplets": figure} for space, figure in heard.items()}))


if __name__ == "__main__":
    main()
