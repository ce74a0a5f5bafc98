"""A listening study: triplets of passages, drawn from an index of clips, as one page to listen to.

A listener hears A (the anchor), B and C, and says which of the two is more like A. Beside the
triplets, which the strata share, a tenth comes again, later and with B and C the other way round;
and per twenty there is a *catch trial*, where B or C is A itself: who fails it did not listen. Each
side has the first of the two passages equally often. All excerpts have one loudness, so that it
decides nothing, unless the aspect is loudness. What is silent is not drawn.
"""

__all__ = ["MOST", "STRATA", "make_study", "measure_loudness"]

import base64
import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mess_core.errors import AudioError, ConfigError, DatasetError, nearest
from mess_core.extraction.audio import encode_excerpt, get_resampler, read_excerpt
from mess_core.files import fingerprint
from mess_core.index.index import Index, Rows
from mess_core.probing.aspects import ASPECT_REGISTRY
from mess_core.progress import Report, counted
from mess_core.recordings import Recording
from mess_core.search.passages import Place, same_rows

#: Three recordings of one work (the same passage, where it is aligned), of one composer (b and c of
#: other works than the anchor), of any.
STRATA = ("work", "composer", "free")
#: Triplets of a study: four hours of listening.
MOST = 1000
#: Aspects by which loudness may decide: excerpts keep their levels.
_LOUD = ("dynamics", "relative_dynamics")
#: The loudness of excerpts, in LUFS (EBU R 128); less where one would come nearer to full scale
#: than so many dB, as an MP3 may peak higher than what it is made from. What is softer is silent.
_LUFS, _HEADROOM_DB, _SILENT_LUFS = -23.0, 1.0, -70.0
#: K-weighting at 48 kHz, two sections of b and a: ITU-R BS.1770-5, annex 1, tables 1 and 2.
_K_WEIGHTING = (
    (1.53512485958697, -2.69169618940638, 1.19839281085285, 1, -1.69065929318241, 0.73248077421585),
    (1.0, -2.0, 1.0, 1.0, -1.99004745483398, 0.99007225036621),
)
#: Triplets per repeat and per catch trial; how often in a row no new triplet may be found.
_PER_REPEAT, _PER_CATCH, _TRIES = 10, 20, 500
_SIDES = ("anchor", "b", "c")


def make_study(
    index: Index,
    recordings: Sequence[Recording],
    *,
    study: str,
    triplets: int = 60,
    aspect: str = "overall",
    strata: Sequence[str] = STRATA,
    seed: int = 0,
    progress: Report | None = None,
) -> tuple[str, dict[str, Any]]:
    """Draw a study; return its page, and what the page knows but for the audio.

    That is ``passages``, ``trials`` (whose anchor, b and c are numbers of passages), and ``lufs``,
    the excerpts' loudness, None where they keep their levels. A seed gives the same again.

    Raises `ConfigError` for an unknown aspect or stratum, fewer than 3 triplets or more than
    `MOST`, or a seed below 0, `DatasetError` where a stratum has too few, and `AudioError` where
    audio is not as it was indexed.
    """
    if aspect not in (asked := ("overall", *ASPECT_REGISTRY)):
        raise ConfigError(f"{aspect!r} is no aspect to ask for: {nearest(aspect, asked)}")
    if not strata or set(strata) - set(STRATA) or len(set(strata)) < len(strata):
        told = f"strata are {', '.join(strata)!r}"
        raise ConfigError(f"{told}, expected some of {', '.join(STRATA)}, each once")
    if not 3 <= triplets <= MOST:
        raise ConfigError(f"{triplets} triplets are asked for, expected 3 to {MOST}")
    if seed < 0:
        raise ConfigError(f"the seed is {seed}, expected a whole number from 0")
    files = {row.recording_id: row for row in recordings if Path(row.audio).is_file()}
    heard: dict[int, tuple[npt.NDArray[np.float32], int, float]] = {}

    def sounds(row: int) -> bool:
        if row not in heard:
            at = index.rows[row]
            path, sha256 = Path(files[at.recording_id].audio), files[at.recording_id].audio_sha256
            try:
                samples, rate = read_excerpt(path, at.start_s, at.end_s, sha256=sha256)
            except AudioError as error:
                raise AudioError(f"{path}: {error}; run the workflow again") from None
            heard[row] = samples, rate, measure_loudness(samples, rate)
        return heard[row][2] > _SILENT_LUFS

    rng = np.random.default_rng(seed)
    draws = {name: _draw(index.rows, files, sounds, name, rng) for name in strata}
    trials = _arrange(draws, triplets, rng)
    rows = list(dict.fromkeys(trial[side] for trial in trials for side in _SIDES))
    loudness = np.array([heard[row][2] for row in rows])
    room = -_HEADROOM_DB - 20 * np.log10([np.abs(heard[row][0]).max() for row in rows])
    lufs = None if aspect in _LOUD else float(min(_LUFS, (loudness + room).min()))
    # Levels that stay have one factor, so that none is clipped.
    gains = np.full(len(rows), min(0.0, room.min())) if lufs is None else lufs - loudness
    excerpts: list[str] = []
    for row in counted(rows, progress, lambda _: ""):
        gain = np.float32(10 ** (gains[len(excerpts)] / 20))
        excerpts.append(encode_excerpt(gain * heard[row][0], heard[row][1]))
    places = [(at.recording_id, at.start_s, at.end_s) for at in map(index.rows.__getitem__, rows)]
    facts = {
        "study": study,
        "aspect": aspect,
        "about": "" if aspect == "overall" else ASPECT_REGISTRY[aspect].description,
        "lufs": lufs,
        "passages": [dict(zip(("recording_id", "start", "end"), p, strict=True)) for p in places],
        "trials": [t | {side: rows.index(t[side]) for side in _SIDES} for t in trials],
    }
    return _fill({**facts, "id": fingerprint(facts)[:16], "excerpts": excerpts}), facts


def measure_loudness(samples: npt.NDArray[np.float32], rate: int) -> float:
    """Return the loudness of mono samples [shape=(n,)] in LUFS, at least -120: BS.1770, no gate."""
    from scipy.signal import sosfilt

    weighted = sosfilt(_K_WEIGHTING, get_resampler(rate, 48_000)(samples))
    return float(-0.691 + 10 * np.log10(max(np.mean(weighted**2), 1e-12)))


def _fill(data: dict[str, Any]) -> str:
    """Return the page of a study. Its policy allows its own script and style, and nothing else."""
    page = (Path(__file__).parent / "study.html").read_text(encoding="utf-8")
    for name in ("style", "script"):
        [inside] = re.findall(rf"<{name}>(.*?)</{name}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        page = page.replace(f"{{{{{name}}}}}", f"'sha256-{digest}'")
    # No text in it ends the element.
    return page.replace("{{data}}", json.dumps(data, ensure_ascii=False).replace("<", "\\u003c"))


def _arrange(
    draws: dict[str, Iterator[tuple[int, int, int]]], triplets: int, rng: np.random.Generator
) -> list[dict[str, Any]]:
    """Draw the trials, in the order in which they are heard; passages are rows of the index."""
    keyed = []
    for number in range(triplets + -(-triplets // _PER_CATCH)):
        turn, place = divmod(number, len(draws))
        stratum = list(draws)[place]
        catch, again = number >= triplets, number < -(-triplets // _PER_REPEAT)
        name, order = f"{number + 1:03d}-{stratum}", ("bc", "cb")[(turn + place) % 2]
        trial = dict(zip(_SIDES, next(draws[stratum]), strict=True))
        if catch:
            trial["bbcc"[(number - triplets) % 4]] = trial["anchor"]
        told = {"triplet_id": name, "order": order, "repeat_of": "", "catch": catch}
        keyed.append((rng.uniform(0, 1 / 3 if again else 1), trial | told))
        if again:
            told |= {"triplet_id": f"{name}-again", "order": order[::-1], "repeat_of": name}
            keyed.append((rng.uniform(1 / 2, 1), trial | told))
    return [trial for _, trial in sorted(keyed, key=lambda pair: pair[0])]


def _draw(
    rows: Rows,
    usable: Collection[str],
    sounds: Callable[[int], bool],
    stratum: str,
    rng: np.random.Generator,
) -> Iterator[tuple[int, int, int]]:
    """Give triplets of a stratum, none twice: rows of three recordings, the anchor first."""
    # Who has no work or composer has none in common with others.
    names, works, composers = (
        np.array([text or f"\0{i}" for i, text in enumerate(rows.recordings[column])])
        for column in ("recording_id", "work_id", "composer")
    )
    kin = {"work": works, "composer": composers, "free": np.zeros(len(names))}[stratum]
    # Of whose recordings b and c are none.
    own = works if stratum == "composer" else names
    there, of_row = np.isin(names, list(usable)), rows.table["recording"]
    sizes, less = (Counter(group[there].tolist()) for group in (kin, own))
    anchors = [n for n in np.flatnonzero(there) if sizes[kin[n]] - less[own[n]] >= 2]
    drawn, tries = set[tuple[int, ...]](), 0
    while anchors and tries < _TRIES:
        tries += 1
        number = rng.choice(anchors)
        anchor = int(rng.choice(rows.positions(names[number])))
        mates = there & (kin == kin[number]) & (own != own[number])
        found = np.flatnonzero(mates[of_row])
        if stratum == "work" and np.isfinite(rows.table["work_start_s"][found]).any():
            at = rows[anchor]
            place = Place(np.array([anchor]), at, (at.start_s, at.end_s))
            found = np.intersect1d(found, same_rows(rows, place))
        if len(others := np.unique(of_row[found])) >= 2:
            two = [found[of_row[found] == other] for other in rng.choice(others, 2, replace=False)]
            b, c = (int(rng.choice(some)) for some in two)
            triplet = anchor, *sorted((b, c))
            if triplet not in drawn and all(map(sounds, triplet)):
                drawn.add(triplet)
                tries = 0
                yield anchor, b, c
    raise DatasetError(
        f"the stratum {stratum} has only {len(drawn)} triplets that can be heard: of {len(names)} "
        f"recordings {there.sum()} have audio on disk, and {len(anchors)} go together with two "
        "others; ask for fewer (--triplets), leave it out (--strata), or run where the paths of "
        "the audio lead to it"
    )
