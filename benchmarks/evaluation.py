"""Spaces side by side on real performances: ``make bench-evaluation``, or

    python -m benchmarks.evaluation --soundfont PIANO.sf2 descriptors mess-small

Spaces are encoders by name or folder, ``NAME-untrained`` a twin, ``a+b`` two of them joined; those
that are not there are left out. `mess_core.evaluation` says what the figures are.

* *ASAP*, up to five players of each work, the first 40 s, rendered; the truth is their MIDI. Works
  whose name has an odd hash are kept aside: no constant is chosen on them, and they alone are
  judged. From the others ridge regressions learn, too.
* *PercePiano*: Schubert's clips, rendered, and what listeners said of them. Which scales count was
  chosen on Beethoven's.
* With ``--answers`` the workflow runs on what is kept aside, and judges its own answers.

Audio and features are kept in ``--work``.
"""

import argparse
import csv
import hashlib
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import mido
import numpy as np
import numpy.typing as npt
import soundfile

from mess_core.datasets.render import render_midi
from mess_core.errors import MessError
from mess_core.evaluation import Figure, Rows, cosine, general, same_passage, triplets, within_works
from mess_core.evaluation.judgments import HALVES, RELIABLE, halve, read_ratings, reliability
from mess_core.extraction import MODELS, find_checkpoint, make_untrained
from mess_core.extraction.audio import load_audio
from mess_core.extraction.extractor import FeatureExtractor
from mess_core.files import atomic_path, write_text
from mess_core.targets.create import measure_windows
from mess_core.targets.notes import read_performance

Features = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]

#: Of each performance the first so many seconds; of each work at most so many performances.
EXCERPT_S, PLAYERS = 40.0, 5
RATE, WINDOW_S, HOP_S = 24_000, 5.0, 2.5
#: The targets that are the truth, and their short names; and those whose logarithm is.
TRUTH = {
    **{"velocity_mean": "velocity", "velocity_std": "velocity SD", "note_rate": "density"},
    **{"chord_rate": "chord rate", "performed_tempo_level": "tempo", "rubato": "rubato"},
    **{"held": "held", "articulation_ratio": "articulation", "pedal_share": "pedal"},
    "chord_spread": "chord spread",
}
LOGARITHMIC = ("note_rate", "chord_rate", "performed_tempo_level", "held")
#: Passages of PercePiano with fewer clips do not count, and ratings above the scales' end.
CLIPS, MOST = 10, 7
SCALES = [f"s{number:02}" for number in range(1, 20)]


class Excerpt(NamedTuple):
    """A rendered excerpt, and whether its work is kept aside."""

    recording_id: str
    work_id: str
    performer: str
    midi: Path
    beats: Path
    audio: Path
    kept: bool


def render_excerpts(asap: Path, folder: Path, soundfont: Path | None) -> list[Excerpt]:
    """Render what is not there yet, and write a table of what is kept aside."""
    excerpts = []
    with (asap / "recordings.tsv").open(encoding="utf-8") as table:
        works = groupby(csv.DictReader(table, delimiter="\t"), lambda row: row["work_id"])
        chosen = [row for _, rows in works for row in list(rows)[:PLAYERS]]
    for row in chosen:
        name, work = row["recording_id"], row["work_id"]
        midi, beats, audio = (folder / f"{name}{suffix}" for suffix in (".mid", ".beats", ".wav"))
        kept = bool(int(hashlib.sha256(work.encode()).hexdigest(), 16) % 2)
        excerpts.append(Excerpt(name, work, row["performer"], midi, beats, audio, kept))
        render(asap / row["midi"], midi, audio, soundfont)
        lines = (asap / row["beats"]).read_text(encoding="utf-8").splitlines(keepends=True)
        write_text(beats, "".join(x for x in lines if float(x.split("\t")[0]) < EXCERPT_S))
    fields = Excerpt._fields[:-1]
    judged = ("\t".join(map(str, excerpt[:-1])) for excerpt in excerpts if excerpt.kept)
    write_text(folder / "kept.tsv", "\n".join(["\t".join(fields), *judged]) + "\n")
    return excerpts


def render(whole: Path, midi: Path, audio: Path, soundfont: Path | None) -> None:
    """Write the MIDI and the audio of an excerpt, of at least a window."""
    if audio.exists():
        return
    audio.parent.mkdir(parents=True, exist_ok=True)
    cut_midi(whole, midi)
    samples = render_midi(midi, sample_rate=RATE, soundfont=soundfont).mean(axis=1)
    samples = np.pad(samples, (0, max(0, round(WINDOW_S * RATE) - len(samples))))
    with atomic_path(audio) as temporary:
        soundfile.write(temporary, samples[: round(EXCERPT_S * RATE)], RATE, format="WAV")


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
    parts = [performance.cut(t, t + WINDOW_S) for t in starts]
    held = [(p.releases - p.onsets).mean() if len(p.onsets) > 4 else np.nan for p in parts]
    found = {"held": np.array(held), **targets["expression"]}
    return {n: np.log(found[n]) if n in LOGARITHMIC else found[n] for n in TRUTH}


def extracted(
    spaces: Sequence[str], audio: Mapping[str, Path], folder: Path, overlap: float
) -> Iterator[tuple[str, list[Features]]]:
    """Give every space that is there with the features [windows, L, D] of recordings."""
    for space in spaces:
        try:
            parts = [_extract(part, audio, folder, overlap) for part in space.split("+")]
        except MessError as error:
            print(f"{space} is left out: {error}")
            continue
        width = max(blocks[0].shape[2] for blocks in parts)
        padded = [
            [np.pad(block, ((0, 0), (0, 0), (0, width - block.shape[2]))) for block in blocks]
            for blocks in parts
        ]
        yield space, [np.concatenate(blocks, axis=1) for blocks in zip(*padded, strict=True)]


def _extract(space: str, audio: Mapping[str, Path], folder: Path, overlap: float) -> list[Features]:
    extractor, found = None, []
    for name, path in audio.items():
        stored = folder / space.replace("/", "_") / f"{name}.npy"
        if not stored.exists():
            stored.parent.mkdir(parents=True, exist_ok=True)
            extractor = extractor or FeatureExtractor(_encoder(space, folder), overlap=overlap)
            rate = extractor.encoder.spec.sample_rate
            features = extractor.extract(load_audio(path, sample_rate=rate)).segments
            with atomic_path(stored) as temporary, temporary.open("wb") as file:
                np.save(file, features)
        found.append(np.load(stored))
    return found


def _encoder(space: str, folder: Path) -> str:
    """Return what loads a space; an untrained twin is made first."""
    trained = space.removesuffix("-untrained")
    if trained == space or space in MODELS:
        return space
    return str(make_untrained(find_checkpoint(trained), folder.parent / "models" / space))


def judge_performances(
    spaces: Sequence[str], excerpts: Sequence[Excerpt], work: Path
) -> dict[str, dict[str, Figure]]:
    """Return the figures of every space on rendered performances."""
    starts = np.arange(0, EXCERPT_S - WINDOW_S + HOP_S / 2, HOP_S)
    truths = [measure_truth(excerpt, starts) for excerpt in excerpts]
    truth = {name: np.concatenate([each[name] for each in truths]) for name in TRUTH}
    ends = np.column_stack([starts, starts + WINDOW_S])
    times = [np.loadtxt(e.beats, usecols=0, ndmin=1) for e in excerpts]
    spans = np.concatenate([np.interp(ends, beats, np.arange(len(beats))) for beats in times])
    columns = [np.repeat(column, len(starts)) for column in zip(*excerpts, strict=True)]
    rows, kept = Rows(columns[0], columns[1], columns[2]), columns[6]
    judged = Rows(rows.recordings[kept], rows.works[kept], rows.performers[kept])
    found: dict[str, dict[str, Figure]] = {}
    for space, blocks in extracted(spaces, {e.recording_id: e.audio for e in excerpts}, work, 0.5):
        features = np.concatenate(blocks)
        found[space] = {
            **{
                short: within_works(features, truth[name], rows, name=name, judged=kept)
                for name, short in TRUTH.items()
            },
            **same_passage(general(features[kept]), judged, spans[kept]),
            "MRR, plain cosine": same_passage(cosine(features[kept]), judged, spans[kept])["MRR"],
        }
        chance = {n: Figure(f.chance, None, 0.0, 0, 0) for n, f in found[space].items()}
        print(table({"chance": chance, **found}), flush=True)
    return found


def judge_listeners(
    spaces: Sequence[str], percepiano: Path, folder: Path, work: Path, soundfont: Path | None
) -> dict[str, Figure]:
    """Return how far distances agree with listeners', and those of half the listeners."""
    _, ratings = read_ratings(percepiano / "ratings.csv", most=MOST)
    rng = np.random.default_rng(0)
    beethoven, schubert = (passages(ratings, work) for work in ("Beethoven", "Schubert"))
    scales = reliability(ratings, beethoven, rng) >= RELIABLE
    names, groups = list(schubert), np.array(list(schubert.values()))
    heard = apart(np.array([np.nanmean(ratings[name][:, scales], axis=0) for name in names]))
    print("scales:", ", ".join(np.array(SCALES)[scales]))
    halves = [halve(ratings, names, rng)[:, :, scales] for _ in range(HALVES)]
    own = [triplets(apart(one), apart(other), groups) for one, other in halves]
    ceiling = float(np.mean([figure.value for figure in own]))
    found = {"half of the listeners": Figure(ceiling, None, 0.5, own[0].n, own[0].works)}
    audio = {name: folder / f"{name}.wav" for name in names}
    for name, path in audio.items():
        render(percepiano / "midi" / f"{name}.mid", path.with_suffix(".mid"), path, soundfont)
    for space, blocks in extracted(spaces, audio, work, 0.0):
        search = general(np.array([block.mean(axis=0) for block in blocks]))
        found[space] = triplets(-np.array([*map(search, range(len(names)))]), heard, groups)
    return found


def passages(ratings: Mapping[str, Floats], work: str) -> dict[str, str]:
    """Return the passage of every clip of a work that is played by `CLIPS` or more."""
    found = {clip: "_".join(clip.rsplit("_", 2)[::2]) for clip in ratings if clip.startswith(work)}
    return {clip: p for clip, p in found.items() if list(found.values()).count(p) >= CLIPS}


def apart(values: Floats) -> Floats:
    """Return distances [n, n] of values [n, q], each in its standard deviations."""
    scaled = values / np.nanstd(values, axis=0)
    return np.asarray(np.linalg.norm(scaled[:, np.newaxis] - scaled, axis=2))


def table(found: Mapping[str, Mapping[str, Figure]]) -> str:
    """Return figures with their intervals as a table in Markdown, a line per figure."""
    names = list(dict.fromkeys(name for figures in found.values() for name in figures))
    lines = [f"| | {' | '.join(found)} |", "|---" * (len(found) + 1) + "|"]
    for name in names:
        cells = []
        for figure in (figures[name] for figures in found.values()):
            reach = figure.interval
            told = f" ({reach[0]:.2f} to {reach[1]:.2f})" if reach else ""
            cells.append(f"{figure.value:.2f}{told}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def judge_answers(space: str, table: Path, data: Path) -> str:
    """Run the workflow on what is kept aside, and return its own table.

    All aspects are asked for, however badly what is heard follows their truth.
    """
    folder = data / "answers" / Path(space).name
    scan = ["mess", "recordings", "--table", str(table), "--name", "asap", "--data", str(folder)]
    subprocess.run(scan, check=True)
    wanted = folder / "reports" / "asap" / "evaluation.tsv"
    given = ["dataset=asap", f"encoder={space}", f"data={folder}"]
    given += ["probing={baselines: []}", "aspects={min_r2: 0}"]
    subprocess.run(["snakemake", "--cores", "2", str(wanted), "--config", *given], check=True)
    return wanted.read_text(encoding="utf-8")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evaluation")
    parser.add_argument("spaces", nargs="+")
    parser.add_argument("--shared", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, default=Path("data/evaluation"))
    parser.add_argument("--soundfont", type=Path, help=".sf2; default: the one in pretty_midi")
    parser.add_argument("--answers", action="store_true", help="run the workflow, too")
    args = parser.parse_args()
    work = args.work / (args.soundfont.stem if args.soundfont else "default")
    excerpts = render_excerpts(args.shared / "asap", work / "asap", args.soundfont)
    judge_performances(args.spaces, excerpts, work / "asap-features")
    folders = work / "percepiano", work / "percepiano-features"
    heard = judge_listeners(args.spaces, args.shared / "percepiano", *folders, args.soundfont)
    print(table({space: {"listeners' triplets": figure} for space, figure in heard.items()}))
    for space in (space for space in args.spaces if args.answers and "+" not in space):
        print(space, judge_answers(space, work / "asap" / "kept.tsv", work), sep="\n")


if __name__ == "__main__":
    main()
