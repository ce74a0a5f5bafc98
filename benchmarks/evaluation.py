"""Spaces side by side on real performances: ``make bench-evaluation``, or

    python -m benchmarks.evaluation --soundfont PIANO.sf2 descriptors mess-small

Spaces are encoders by name or folder, ``NAME-untrained`` a twin, ``a+b`` two of them joined; those
that are not there are left out. `mess_core.evaluation` says what the figures are.

* *ASAP*, up to five players of each work, the first 40 s, rendered; the truth is their MIDI. Works
  whose name has an odd hash are kept aside: no constant is chosen on them, and they alone are
  judged. From the others ridge regressions learn, too.
* *The demo*: six interpretations of each of nine works.
* *PercePiano*: Schubert's clips, rendered, and what listeners said of them.
* With ``--answers`` the workflow runs on the demo, on what of ASAP is kept aside and on PercePiano,
  and judges its own answers.

Audio and features are kept in ``--work``.
"""

import argparse
import csv
import hashlib
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import mido
import numpy as np
import numpy.typing as npt
import soundfile

from benchmarks.recordings import demo_audio, describe
from mess_core.datasets.render import render_midi
from mess_core.errors import MessError
from mess_core.evaluation import Figure, Rows, cosine, same_passage, within_works
from mess_core.evaluation.judges import occupancy, same_player
from mess_core.evaluation.judgments import Passage, derive, judge_people, read_ratings
from mess_core.evaluation.spaces import Read, Space, search_of
from mess_core.extraction import MODELS, find_checkpoint, make_untrained
from mess_core.extraction.audio import load_audio, segment_starts
from mess_core.extraction.extractor import FeatureExtractor
from mess_core.files import atomic_path, write_text
from mess_core.index.fitting import fit_projection
from mess_core.layout import ENCODER
from mess_core.probing.questions import write_table
from mess_core.targets.create import measure_windows
from mess_core.targets.notes import read_performance

Features = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]

#: Of each performance the first so many seconds; of each work at most so many performances.
EXCERPT_S, PLAYERS = 40.0, 5
RATE, WINDOW_S = 24_000, 5.0
#: The targets that are the truth, and their short names; and those whose logarithm is.
TRUTH = {
    **{"velocity_mean": "velocity", "velocity_std": "velocity SD", "note_rate": "density"},
    **{"chord_rate": "chord rate", "performed_tempo_level": "tempo", "rubato": "rubato"},
    **{"held": "held", "articulation_ratio": "articulation", "pedal_share": "pedal"},
    "chord_spread": "chord spread",
}
LOGARITHMIC = ("note_rate", "chord_rate", "performed_tempo_level", "held")
#: What "the same player" may be known by, without a space.
ALONE = ("performed_tempo_level", "velocity_mean")
#: Passages of PercePiano with fewer clips do not count.
CLIPS = 10


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


def demo_excerpts(work: Path) -> list[Excerpt]:
    """Return the whole performances of the demo, all of them judged."""
    found = []
    for path in demo_audio(work):
        work_id, interpretation = path.stem.rsplit("_", 1)
        midi, beats = path.with_suffix(".mid"), path.with_suffix(".beats.tsv")
        found.append(Excerpt(path.stem, work_id, interpretation, midi, beats, path, kept=True))
    return found


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


def starts_of(audio: Path) -> Floats:
    """Return where the windows of a file start, in seconds."""
    info = soundfile.info(audio)
    starts = segment_starts(info.frames, sample_rate=info.samplerate)
    return np.asarray(starts / info.samplerate)


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
    starts = [starts_of(excerpt.audio) for excerpt in excerpts]
    truths = [measure_truth(*each) for each in zip(excerpts, starts, strict=True)]
    truth = {name: np.concatenate([each[name] for each in truths]) for name in TRUTH}
    times = [np.loadtxt(e.beats, usecols=0, ndmin=1) for e in excerpts]
    spans = np.concatenate(
        [
            np.interp(np.column_stack([s, s + WINDOW_S]), beats, np.arange(len(beats)))
            for s, beats in zip(starts, times, strict=True)
        ]
    )
    sizes = [len(each) for each in starts]
    columns = [np.repeat(column, sizes) for column in zip(*excerpts, strict=True)]
    rows, kept = Rows(columns[0], columns[1], columns[2]), columns[6]
    judged = Rows(rows.recordings[kept], rows.works[kept], rows.performers[kept])
    alone = np.column_stack([truth[name][kept] for name in ALONE])
    players = same_player(search_of(alone / np.nanstd(alone, axis=0), euclidean=True), judged)
    found = {"tempo and velocity": {f"same player: {m}": f for m, f in players.items()}}
    for space, blocks in extracted(spaces, {e.recording_id: e.audio for e in excerpts}, work, 0.5):
        features = np.concatenate(blocks)
        known = {
            short: within_works(features, truth[name], rows, name=name, judged=kept)
            for name, short in TRUTH.items()
        }
        features = features[kept]
        found[space] = known | judge_order(whitened(features)(features, None), judged, spans[kept])
        plain = same_passage(cosine(features), judged, spans[kept])
        found[space]["same passage: MRR, plain cosine"] = plain["MRR"]
    known = {name: figure for each in found.values() for name, figure in each.items()}
    chance = {n: Figure(f.chance, None, 0.0, f.n, f.works) for n, f in known.items()}
    print(table({"chance": chance, **found}), flush=True)
    return found


def judge_order(vectors: Floats, rows: Rows, spans: Floats) -> dict[str, Figure]:
    """Return the figures of vectors' order, and of how they fill their space."""
    search = cosine(vectors)
    passages, players = same_passage(search, rows, spans), same_player(search, rows)
    return {
        **{f"same passage: {measure}": figure for measure, figure in passages.items()},
        **{f"same player: {measure}": figure for measure, figure in players.items()},
        **occupancy(vectors, rows),
    }


def judge_listeners(
    spaces: Sequence[str], percepiano: Path, folder: Path, work: Path, soundfont: Path | None
) -> dict[str, dict[str, Figure]]:
    """Return how far spaces agree with what follows from ratings, and halves of listeners.

    Also writes the tables of clips and of ratings that the workflow reads.
    """
    clips = clean_ratings(percepiano, folder / "ratings.csv")
    of = passages(clips, "Schubert")
    rows, recordings = [], []
    for name, passage in of.items():
        midi, audio = (folder / f"{name}{suffix}" for suffix in (".mid", ".wav"))
        render(percepiano / "midi" / midi.name, midi, audio, soundfont)
        recordings.append(replace(describe(audio), work_id=passage))
        row = {"recording_id": name, "work_id": passage, "performer": name.split("_")[-2]}
        rows.append({**row, "midi": str(midi), "audio": str(audio)})
    write_table(rows, folder / "clips.tsv")
    judgments = derive(clips, recordings, study="ratings")
    whole = [Passage(its.recording_id, 0.0, its.duration_s) for its in recordings]
    judged = []
    files = {its.recording_id: Path(its.audio) for its in recordings}
    for name, blocks in extracted(spaces, files, work, 0.0):
        read = whitened(np.concatenate(blocks))
        means = np.array([block.mean(axis=0) for block in blocks])
        judged.append((Space(name, ENCODER, False, read), read(means, None)))
    lines = judge_people(judged, whole, judgments, of)
    found = {
        each["asked"]: Figure(
            each["value"], (each["low"], each["high"]), 0.5, each["n"], each["works"]
        )
        for each in lines
    }
    halves = Figure(lines[0]["ceiling"], None, 0.5, lines[0]["n"], lines[0]["works"])
    return {name: {"listeners": f} for name, f in {"halves of listeners": halves, **found}.items()}


def clean_ratings(percepiano: Path, path: Path) -> dict[str, Floats]:
    """Write PercePiano's ratings without those above 7, which are errors, and read them."""
    told = (percepiano / "ratings.csv").read_text(encoding="utf-8")
    write_text(path, re.sub(r",(?:[89]|\d\d+)\.\d+", ",", told))
    return read_ratings(path)[1]


def whitened(features: Features) -> Read:
    """Return what reads the general block, fitted to features [n, L, D], of others."""
    projection = fit_projection(lambda layer: features[:, layer], range(features.shape[1]))
    return lambda given, _: projection.read(given)[0].astype(np.float64)


def passages(clips: Iterable[str], work: str) -> dict[str, str]:
    """Return the passage of every clip of a work that is played by `CLIPS` or more."""
    found = {clip: "_".join(clip.rsplit("_", 2)[::2]) for clip in clips if clip.startswith(work)}
    return {clip: p for clip, p in found.items() if list(found.values()).count(p) >= CLIPS}


def table(found: Mapping[str, Mapping[str, Figure]]) -> str:
    """Return figures with their intervals and n as a table in Markdown, a line per figure."""
    names = list(dict.fromkeys(name for figures in found.values() for name in figures))
    lines = [f"| | {' | '.join([*found, 'n, works'])} |", "|---" * (len(found) + 2) + "|"]
    for name in names:
        cells = []
        for figure in (figures.get(name) for figures in found.values()):
            reach = figure and figure.interval
            told = f" ({reach[0]:.2f} to {reach[1]:.2f})" if reach else ""
            cells.append(f"{figure.value:.2f}{told}" if figure else "")
        counts = next((f"{f[name].n}, {f[name].works}" for f in found.values() if name in f), "")
        lines.append(f"| {name} | {' | '.join([*cells, counts])} |")
    return "\n".join(lines) + "\n"


def judge_answers(name: str, space: str, folder: Path, table: Path | None) -> None:
    """Run the workflow on recordings, the demo's by default, and print what it says of its answers.

    All aspects of a table's recordings are asked for, however badly what is heard follows their
    truth.
    """
    data = ["--data", str(folder)]
    given = [f"dataset={name}", f"encoder={space}", f"data={folder}"]
    given.append("probing={baselines: [untrained, descriptors]}")
    commands = [["mess", "recordings", "demo", *data]]
    if table:
        commands = [["mess", "recordings", "--table", str(table), "--name", name, *data]]
        given.append("aspects={min_r2: 0}")
    data += ["--dataset", name]
    if table and (ratings := table.with_name("ratings.csv")).exists():
        commands.append(["mess", "triplets", "import", str(ratings), *data])
    wanted = folder / "reports" / name / "evaluation.tsv"
    commands.append(["snakemake", "--cores", "2", str(wanted), "--config", *given])
    for command in [*commands, ["mess", "question", "evaluation", *data]]:
        subprocess.run(command, check=True)


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
    demo = demo_excerpts(args.work)
    excerpts = render_excerpts(args.shared / "asap", work / "asap", args.soundfont)
    for name, each in {"demo": demo, "asap": excerpts}.items():
        judge_performances(args.spaces, each, work / f"{name}-features")
    folders = work / "percepiano", work / "percepiano-features"
    heard = judge_listeners(args.spaces, args.shared / "percepiano", *folders, args.soundfont)
    print(table(heard))
    tables: dict[str, Path | None]
    tables = {"demo": None, "asap": work / "asap/kept.tsv", "percepiano": folders[0] / "clips.tsv"}
    for space in (
        space for space in args.spaces if args.answers and not re.search("[+]|-untrained", space)
    ):
        for name, recordings in tables.items():
            judge_answers(name, space, work / "answers" / f"{name}-{Path(space).name}", recordings)


if __name__ == "__main__":
    main()
