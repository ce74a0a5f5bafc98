"""Geometry is learned where one is planted, and nothing is taken where there is none."""

import json
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.linalg import sqrtm, subspace_angles
from scipy.optimize import check_grad

from mess_core.evaluation import geometry
from mess_core.evaluation.counterfactuals import Counterfactuals
from mess_core.evaluation.geometry import (
    HEADS,
    Learned,
    learn,
    learn_from,
    linear_loss,
    triplets_of,
    weights_loss,
)
from mess_core.evaluation.judges import Rows
from mess_core.evaluation.judgments import Judgment, Passage
from mess_core.extraction.storage import load_features
from mess_core.files import write_json
from mess_core.index.fitting import fit_projection
from mess_core.layout import Layout
from mess_core.probing.folds import deal_folds
from mess_core.recordings import COLUMNS, Recording

pytestmark = pytest.mark.unit

Floats = npt.NDArray[np.float64]

WORKS, PLAYERS, WINDOWS = 10, 4, 10
WORK, PLAYER, WINDOW = (axis.ravel() for axis in np.indices((WORKS, PLAYERS, WINDOWS)))
N = len(WORK)
ROWS = Rows(
    np.array([f"r{w}-{p}" for w, p in zip(WORK, PLAYER, strict=True)]),
    np.array([f"w{w}" for w in WORK]),
    np.array([f"p{p}" for p in PLAYER]),
)
SPANS = np.column_stack([10.0 * WINDOW, 10.0 * WINDOW + 10])
FOLDS = deal_folds(ROWS.works.tolist(), 5)
#: Which dimensions carry notes, and which the player; the last seven carry nothing.
NOTES, OF_PLAYER, DIMS = slice(0, 7), slice(7, 13), 20
PLANTED = {"content": NOTES, "expression": OF_PLAYER}
TURN = np.linalg.qr(np.random.default_rng(9).normal(size=(DIMS, DIMS)))[0]


def planted(noise: float) -> Floats:
    rng = np.random.default_rng(0)
    notes = rng.normal(size=(WORKS, WINDOWS, 7))[WORK, WINDOW]
    own = np.column_stack([notes, rng.normal(size=(PLAYERS, 6))[PLAYER]])
    own += 0.5 * rng.normal(size=own.shape)
    return np.column_stack([own, noise * rng.normal(size=(N, 7))])


def learned(rows: Floats, **truth: Floats) -> tuple[Learned, dict[str, bool | None], Floats]:
    """Learn, and return with it which stages are taken, and the centred unit rows."""
    features = (rows + 10.0).astype(np.float32)[:, np.newaxis]
    projection = fit_projection(lambda layer: features[:, layer], [0])
    nobody = np.empty((0, 3), np.int64)
    found = learn(
        features, ROWS, SPANS, projection=projection, windows=N, judged=nobody, truth=truth
    )
    unit = rows - rows.mean(axis=0)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    return found, {verdict.rule: verdict.fired for verdict in found.verdicts}, unit


def values(found: Learned, judge: str, measure: str, against: str = "") -> dict[str, float]:
    named = judge, measure, against
    return {
        line["asked"]: line["value"]
        for line in found.lines
        if (line["judge"], line["measure"], line["against"]) == named
    }


def test_weights_find_planted_dimensions_again() -> None:
    found, taken, unit = learned(planted(noise=2.0))
    assert taken["content, weights"]
    assert taken["expression, weights"]
    for head, mine in PLANTED.items():
        weights = np.linalg.norm(found.bases[head], axis=1) * unit.std(axis=0)
        others = np.delete(weights, np.r_[mine])
        assert weights[mine].min() > 1.1 * others.max(), head
    content, expression = (values(found, "triplets", "accuracy", head) for head in HEADS)
    # Each head is worse than before at what the other is for.
    assert content["content, weights"] > content["general"] + 0.1
    assert expression["content, weights"] < expression["general"] - 0.1
    assert expression["expression, weights"] > 0.9 > expression["general"]
    assert content["expression, weights"] < content["general"] - 0.1
    passage, player = (values(found, f"same {x}", "recall@1") for x in ("passage", "player"))
    assert passage["content, weights"] > passage["general"] + 0.1
    assert player["expression, weights"] > player["general"] + 0.1


def test_a_linear_map_finds_planted_directions_again() -> None:
    found, taken, unit = learned(planted(noise=3.0) @ TURN)
    assert taken["content, linear"]
    assert taken["expression, linear"]
    # Whatever a stage begins at, half of what is general has to be left.
    ranks = [re.findall(r"RankMe (\d+) becomes", verdict.text) for verdict in found.verdicts]
    assert ranks == 4 * [ranks[0]]
    # What lies across all dimensions is not for weights.
    assert not taken["content, weights"]
    for head, mine in PLANTED.items():
        heard = sqrtm(np.cov(unit.T)) @ found.bases[head]
        first = np.linalg.svd(heard)[0][:, :3]
        # Four players differ in three directions.
        angle = np.rad2deg(subspace_angles(first, TURN[mine].T)).max()
        assert angle < 30, (head, angle)


def test_a_tie_is_not_taken() -> None:
    rng = np.random.default_rng(1)
    notes = rng.normal(size=(WORKS, WINDOWS, DIMS))[WORK, WINDOW]
    for own in (0.0, 1.0):
        found, taken, _ = learned(own * notes + rng.normal(size=(N, DIMS)))
        assert len(taken) == 4
        assert not any(taken.values())
        assert not found.bases
        # Maps learn noise by heart, but are asked about works that they have not seen. To forget
        # the notes is no knowledge of players.
        assert values(found, "triplets", "accuracy", "expression")["expression, linear"] < 0.6


def test_what_costs_an_aspect_is_not_taken() -> None:
    rows = planted(noise=2.0)
    taken = learned(rows, sound=rows[:, 13:])[1]
    assert taken["content, weights"]
    assert not taken["expression, weights"]


def test_triplets_are_what_they_are_said_to_be() -> None:
    found = triplets_of(ROWS, SPANS, FOLDS)
    a, near, far = found["content"].T
    for same in (WORK, WINDOW):
        assert (same[a] == same[near]).all()
    assert (PLAYER[a] != PLAYER[near]).all()
    assert (ROWS.recordings[near] == ROWS.recordings[far]).all()
    assert (WINDOW[near] != WINDOW[far]).all()
    a, near, far = found["expression"].T
    assert (PLAYER[a] == PLAYER[near]).all()
    assert (WORK[a] != WORK[near]).all()
    assert ((WORK[a] == WORK[far]) & (WINDOW[a] == WINDOW[far])).all()
    assert (PLAYER[a] != PLAYER[far]).all()
    # As many lie within a fold as between folds.
    assert (FOLDS[a] == FOLDS[near]).mean() == 0.5


@pytest.mark.parametrize("make", [weights_loss, linear_loss])
def test_gradients_are_those_of_finite_differences(make: Callable[..., Any]) -> None:
    rng = np.random.default_rng(3)
    rows, triplets = rng.normal(size=(12, 5)), rng.integers(12, size=(40, 3))
    counts = rng.uniform(size=40)
    loss = make(rows, triplets, counts, 0.3)
    for _ in range(3):
        begin = rng.uniform(0.5, 1.5, size=5 if make is weights_loss else 25)
        wrong = check_grad(lambda x: loss(x)[0], lambda x: loss(x)[1], begin)
        assert wrong < 1e-5 * np.linalg.norm(loss(begin)[1])


def corpus(folder: Path, works: int) -> tuple[Layout, list[Recording]]:
    """Write the planted corpus, its counterfactuals, and what people judged of it."""
    layout, recordings, rows = Layout(folder, "planted"), [], planted(noise=2.0) + 10.0
    beats = folder / "beats"
    beats.write_text("".join(f"{t}\n" for t in np.arange(0, 60, 0.5)))
    for name in np.unique(ROWS.recordings[works > WORK]).tolist():
        mine = ROWS.recordings == name
        features = rows[mine, np.newaxis].astype(np.float32)
        layout.features("segments", name).parent.mkdir(parents=True, exist_ok=True)
        np.save(layout.features("segments", name), features)
        layout.targets(name).parent.mkdir(parents=True, exist_ok=True)
        centroid = {"windows/timbre/spectral_centroid": rows[mine, 0]}
        np.savez(layout.targets(name), **centroid)
        facts: dict[str, Any] = {**dict.fromkeys(COLUMNS, ""), "duration_s": 50.0}
        work, player = name[1:].split("-")
        facts |= {"recording_id": name, "work_id": f"w{work}", "performer": f"p{player}"}
        recordings.append(Recording(**facts | {"beats": str(beats)}))
    truth = {"source": "audio", "targets": ["spectral_centroid"]}
    write_json(layout.aspects, {"aspects": {"brightness": {"truth": truth}}})
    return layout, recordings


def answer(layout: Layout, recordings: list[Recording]) -> Learned:
    return learn_from(
        layout,
        recordings,
        lambda _, windows: np.full_like(windows, np.nan),
        window_s=5.0,
        overlap=0.0,
        general_layers=None,
        varied=True,
    )


def test_a_corpus_is_learned_from_with_counterfactuals_and_people(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout, recordings = corpus(tmp_path, WORKS)
    plain = answer(layout, recordings)
    assert len(plain.verdicts) == 4
    assert {verdict.rule: verdict.fired for verdict in plain.verdicts}["content, weights"]
    assert "not known: people's agreement" in plain.verdicts[2].text
    assert "agreement falls with brightness" in plain.verdicts[2].text

    variants = [("", 0), ("tempo", -1), ("tempo", 1), ("pedal", 1), ("room", 1)]
    names = [(f"w{work}", *variant, f"r{work}-0") for work in range(8) for variant in variants]
    columns = [np.array(column) for column in zip(*names, strict=True)]
    many = np.random.default_rng(2).normal(size=(len(names), 1, DIMS)).astype(np.float32)
    none = np.zeros((len(names), 0))
    made = Counterfactuals(np.array(["none"]), *columns, many, many, none)  # type: ignore[call-arg]
    layout.counterfactuals.parent.mkdir()
    np.savez(layout.counterfactuals, **vars(made))
    judged = []
    for n in range(24):
        anchor, far = (Passage(f"r{n % 6}-{player}", 5.0, 10.0) for player in (0, 1))
        near = Passage(anchor.recording_id, 20.0 + n, 26.0 + n)
        of = ("study", f"t{n}", "overall", anchor, near, far)
        judged.append(Judgment(*of, "b", None, "me", "bc", "", catch=False))
    layout.judgments.mkdir()
    named = ("recording_id", "start", "end")
    with (layout.judgments / "a.jsonl").open("w") as file:
        for its in judged:
            passages = {
                key: dict(zip(named, getattr(its, key), strict=True))
                for key in ("anchor", "b", "c")
            }
            file.write(json.dumps(asdict(its) | passages) + "\n")
    found = answer(layout, recordings)
    plainly, more = (
        [next(line["n"] for line in its.lines if line["against"] == head) for head in HEADS]
        for its in (plain, found)
    )
    assert more[0] > plainly[0]
    assert more[1] >= plainly[1] + len(judged)
    assert "; people's agreement " in found.verdicts[2].text
    (agreed,) = (x for x in found.lines if (x["judge"], x["asked"]) == ("people", "general"))
    assert agreed["n"] == len(judged)
    assert found.verdicts[4].text.startswith("24 of 24 serve; left out: 0 of recordings")
    # The works that were judged are drawn first.
    monkeypatch.setattr(geometry, "MOST_WORKS", 6)
    assert answer(layout, recordings).verdicts[4].text.startswith("24 of 24 serve")
    monkeypatch.setattr(geometry, "MOST_WORKS", 4)
    some = answer(layout, recordings[: -4 * PLAYERS]).verdicts[4].text
    assert some.startswith("16 of 24 serve")
    assert "8 of works that have one player, or are not drawn" in some
    # The job writes it as strict JSON.
    json.dumps([*found.lines, *map(asdict, found.verdicts)], allow_nan=False)


def test_of_many_recordings_some_are_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout, recordings = corpus(tmp_path, WORKS)
    read = []

    def load(layout: Layout, name: str, **view: str) -> npt.NDArray[np.float32]:
        read.append(name)
        return load_features(layout, name, **view)

    monkeypatch.setattr(geometry, "load_features", load)
    monkeypatch.setattr(geometry, "MOST_RECORDINGS", 2)
    answer(layout, recordings)
    works = [name.partition("-")[0] for name in sorted(read)]
    assert works == sorted(2 * [f"r{work}" for work in range(WORKS)])
    assert len(set(read)) == len(read)


def test_takes_of_one_player_are_not_several_players(tmp_path: Path) -> None:
    layout, recordings = corpus(tmp_path, WORKS)
    found = answer(layout, [replace(r, performer="p0") for r in recordings])
    assert found.verdicts[0].text.startswith("not known: 0 works have several players")


def test_too_few_works_are_not_learned_from(tmp_path: Path) -> None:
    found = answer(*corpus(tmp_path, 5))
    assert [verdict.fired for verdict in found.verdicts] == [None, None]
    assert "5 works" in found.verdicts[0].text
    assert not found.bases
    assert not found.lines
