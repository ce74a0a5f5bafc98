"""Aspects that are measured: which source is taken, and what an index makes of it."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from mess_core.index.artifact import load_artifact, read_projection, save_artifact, write_projection
from mess_core.index.fitting import fit_projection
from mess_core.index.index import Index, index_recordings
from mess_core.layout import ENCODER, Layout
from mess_core.probing import LayerDiscoverySystem, resolve_aspects, save_aspects
from mess_core.probing.coordinates import MEASURED_STEP, fit_coordinates
from mess_core.probing.decompositions import decompose_source
from mess_core.search.query import Query
from mess_core.search.search import search, search_features
from mess_core.targets.npz import column_reader, load_targets, save_targets
from tests.probing import toy
from tests.probing.toy import LAYER, RECORDINGS, N, system_of

pytestmark = pytest.mark.unit

Floats = npt.NDArray[np.float64]

#: Of dynamics and dynamic range; brightness has no MIDI, articulation no audio.
TARGETS = (
    *("loudness_level", "velocity_mean", "dynamic_range", "velocity_range"),
    *("spectral_centroid", "spectral_rolloff", "articulation_ratio"),
)
WINDOWS = 8


class Planted:
    """A corpus in which the encoder knows dynamics well and dynamic range badly.

    The audio target of dynamics is bad and that of dynamic range good. ``values`` are the targets
    of all windows.
    """

    def __init__(
        self, data: Path, *, without_midi: int = 0, unit: str = "windows", works: int = 6
    ) -> None:
        self.layout = Layout(data, "toy")
        rng = np.random.default_rng(3)
        shape = N, WINDOWS
        loud, wide, bright, noise = rng.normal(size=(4, *shape))
        self.values = {
            "velocity_mean": 60 + 10 * loud,
            "loudness_level": -30 + 0.2 * loud + rng.normal(size=shape),
            "velocity_range": 20 + 5 * wide,
            "dynamic_range": 10 + 3 * wide + 0.5 * noise,
            "spectral_centroid": 1000 + 100 * bright,
            "spectral_rolloff": 2000 + 200 * bright + 100 * noise,
            "articulation_ratio": rng.normal(size=shape),
        }
        # Undefined in some windows.
        self.values["dynamic_range"][::3, 2] = np.nan
        self.values["velocity_range"][::4, 5] = np.nan
        self.recordings = [
            replace(r, midi="x.mid" if number >= without_midi else "", work_id=f"w{number % works}")
            for number, r in enumerate(RECORDINGS)
        ]
        for number, recording in enumerate(self.recordings):
            features = rng.normal(size=(WINDOWS, toy.LAYERS, toy.DIMS))
            features[:, LAYER, 0] = loud[number] + 0.1 * features[:, LAYER, 0]
            features[:, LAYER, 1] += 0.2 * wide[number]
            more = {name: values[number] for name, values in self.values.items()}
            toy.save(
                self.layout,
                number,
                features.astype(np.float32),
                midi=bool(recording.midi),
                more=more,
            )
        layers = {ENCODER: toy.LAYERS}
        decompose_source(
            self.layout, self.recordings, source=ENCODER, n_layers=toy.LAYERS, unit=unit
        )
        self.system: LayerDiscoverySystem = system_of(
            self.layout, recordings=self.recordings, layers=layers, unit=unit
        )
        for target in TARGETS:
            self.system.discover_and_save(target)

    def resolve(self, source: str = "best", min_r2: float = 0.3) -> dict[str, Any]:
        found = resolve_aspects(
            min_r2, self.layout.probing, targets=TARGETS, source=source, discovery=self.system
        )
        save_aspects(found, self.layout.aspects)
        aspects: dict[str, Any] = found["aspects"]
        return aspects

    def index(self, kind: str = "clips", source: str = "best") -> Index:
        self.resolve(source)
        aspects = resolve_aspects(
            0.3, self.layout.probing, targets=TARGETS, source=source, discovery=self.system
        )
        rows, level = self.system.features[ENCODER], "window" if kind == "clips" else "recording"
        projection = fit_projection(
            lambda layer: rows[layer].rows,
            range(len(rows)),
            coordinates=fit_coordinates(self.system, averaged=kind != "clips"),
            measured=lambda columns: self.system.load_columns(columns, level),  # type: ignore[arg-type]
            recordings=None if kind == "clips" else self.system.names,
        )
        measure = column_reader(self.layout, projection.columns.tolist(), level=level)  # type: ignore[arg-type]
        view = "segments" if kind == "clips" else "aggregated"
        return index_recordings(
            [replace(r, duration_s=2.5 * (WINDOWS + 1)) for r in self.recordings],
            lambda r: np.load(self.layout.features(view, r.recording_id)),
            lambda r: measure(r.recording_id),
            kind=kind,
            window_s=5.0,
            overlap=0.5,
            projection=projection,
            aspects=aspects,
            facts={"dataset": "toy"},
        )


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    return Planted(tmp_path_factory.mktemp("midi"))


@pytest.fixture(scope="module")
def partly(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    return Planted(tmp_path_factory.mktemp("partly"), without_midi=6)


@pytest.fixture(scope="module")
def index(planted: Planted) -> Index:
    return planted.index()


def sources(aspects: Mapping[str, Any]) -> dict[str, list[str]]:
    return {name: entry["sources"] for name, entry in aspects.items() if entry["resolved"]}


def test_the_truth_is_taken_where_every_recording_has_it_and_the_best_other_stands_in(
    planted: Planted,
) -> None:
    aspects = planted.resolve()
    assert sources(aspects) == {
        "dynamics": ["midi", "probed"],
        "dynamic_range": ["midi", "audio"],
        "brightness": ["audio"],
        "articulation": ["midi"],
    }
    for name in ("dynamics", "brightness"):
        own = aspects[name]["sources"][0]
        assert aspects[name]["agreement"][own] == {"r2": 1.0, "distances": 1.0}
    assert aspects["dynamics"]["finding"] == "measured from MIDI"
    assert aspects["brightness"]["finding"] == "measured from audio"


def test_where_some_lack_midi_what_follows_it_better_is_taken(partly: Planted) -> None:
    aspects = partly.resolve()
    assert sources(aspects) == {
        "dynamics": ["probed"],
        "dynamic_range": ["audio"],
        "brightness": ["audio"],
    }
    probed, audio = (aspects["dynamics"]["agreement"][name] for name in ("probed", "audio"))
    assert probed["r2"] > 0.9
    assert audio["r2"] < 0.1
    assert 0.8 < probed["distances"] <= 1
    assert audio["distances"] < 0.3
    told = f"{probed['distances']:.2f} within works (R2 {probed['r2']:.2f})"
    assert aspects["dynamics"]["finding"] == (
        f"probed in layer 2; its distances follow the truth (measured from MIDI) with {told}; "
        "the encoder is untrained"
    )
    audio = aspects["dynamic_range"]["agreement"]["audio"]
    assert audio["r2"] > 0.85
    assert aspects["dynamic_range"]["finding"].startswith("measured from audio; its distances")
    assert "follows the truth with R2" in partly.resolve(min_r2=0.99)["dynamic_range"]["reason"]


def test_one_source_can_be_asked_for(partly: Planted) -> None:
    assert sources(partly.resolve("measured")) == {
        "dynamic_range": ["audio"],
        "brightness": ["audio"],
    }
    assert sources(partly.resolve("probed")) == {"dynamics": ["probed"]}


def test_agreement_is_that_of_works_not_learned_from(partly: Planted) -> None:
    """A linear regression without the row's fold, by hand."""
    audio, truth = (partly.system.load_targets(n) for n in ("dynamic_range", "velocity_range"))
    audio = np.where(np.isnan(audio), np.nanmean(audio), audio)
    kept = np.isfinite(truth)
    works = np.array(partly.system.works)[kept]
    x, y, folds = audio[kept], truth[kept], partly.system.folds[kept]
    predicted = np.empty(len(y))
    for fold in range(5):
        out = folds == fold
        slope, intercept = np.polyfit(x[~out], y[~out], 1)
        predicted[out] = slope * x[out] + intercept
    error, total = 0.0, 0.0
    for work in set(works):
        its = works == work
        wrong = (y - predicted)[its]
        error += np.square(wrong - wrong.mean()).sum()
        total += np.square(y[its] - y[its].mean()).sum()
    found = partly.resolve()["dynamic_range"]["agreement"]["audio"]["r2"]
    assert found == pytest.approx(1 - error / total, abs=2e-3)


def test_coordinates_of_the_truth_are_the_truth(planted: Planted) -> None:
    planted.resolve()
    aspect = {a.name: a for a in fit_coordinates(planted.system)}["dynamics"]
    assert (aspect.sources, aspect.columns) == (("midi", "probed"), ("expression/velocity_mean",))
    truth = planted.system.load_targets("velocity_mean")
    found = (truth - aspect.column_means) * aspect.measured[0, 0]
    assert found.std() == pytest.approx(1)
    assert aspect.value is not None
    np.testing.assert_allclose(found * aspect.value[0], (truth - truth.mean()) / truth.std())
    assert aspect.standard_error == MEASURED_STEP
    X = planted.system.features[ENCODER][LAYER].rows
    stand_in = ((X - aspect.mean) @ aspect.readout)[:, 0]
    assert np.corrcoef(stand_in, found)[0, 1] > 0.95


def test_an_index_finds_rows_in_the_order_of_true_distances(planted: Planted, index: Index) -> None:
    for aspect, targets in (
        ("dynamics", ["velocity_mean"]),
        ("brightness", ["spectral_centroid", "spectral_rolloff"]),
    ):
        raw = np.stack([planted.values[target] for target in targets], axis=-1)
        truth = (raw - raw.mean(axis=(0, 1))) / raw.std(axis=(0, 1))
        hits = search(index, Query("r05", 5.0, 10.0, like={aspect: 1}, k=20)).hits
        assert (hits[0].recording_id, hits[0].start_s) == ("r05", 5.0)
        assert hits[0].score == pytest.approx(1, abs=1e-5)
        distances = np.linalg.norm(truth - truth[5, 2], axis=-1)
        found = [distances[int(h.recording_id[1:]), round(h.start_s / 2.5)] for h in hits]
        np.testing.assert_allclose(found, np.sort(distances.ravel())[:20], atol=1e-3)
        more = search(index, Query("r05", 5.0, 10.0, more={aspect: 1}, k=20)).hits
        assert len(more) == 20
        values = truth.mean(axis=-1) / truth.mean(axis=-1).std()
        for hit in more:
            value = values[int(hit.recording_id[1:]), round(hit.start_s / 2.5)]
            assert value >= values[5, 2] + 0.999 * MEASURED_STEP


def test_undefined_is_the_mean_and_does_no_harm(planted: Planted, index: Index) -> None:
    number = index.projection.aspects["dynamic_range"].number
    values = index.predicted[number].reshape(N, WINDOWS)
    undefined = np.isnan(planted.values["velocity_range"])
    assert undefined.any()
    np.testing.assert_allclose(values[undefined], 0, atol=1e-5)
    assert np.isfinite(index.predicted).all()


def test_an_index_of_recordings_has_what_is_measured_of_recordings(planted: Planted) -> None:
    index = planted.index("recordings")
    truth = planted.values["velocity_mean"].mean(axis=1)
    value = index.predicted[index.projection.aspects["dynamics"].number]
    assert np.corrcoef(value, truth)[0, 1] == pytest.approx(1, abs=1e-6)


def test_rows_may_be_recordings_whatever_the_index_is_of(tmp_path: Path) -> None:
    planted = Planted(tmp_path, unit="recordings")
    truth = planted.values["velocity_mean"]
    for kind, values in (("clips", truth.ravel()), ("recordings", truth.mean(axis=1))):
        index = planted.index(kind)
        found = index.predicted[index.projection.aspects["dynamics"].number]
        assert np.corrcoef(found, values)[0, 1] == pytest.approx(1, abs=1e-6)


def test_two_works_are_too_few_to_probe_and_enough_to_measure(tmp_path: Path) -> None:
    planted = Planted(tmp_path, works=2)
    aspects = planted.resolve()
    assert set(map(tuple, sources(aspects).values())) == {("midi",), ("audio",)}
    assert aspects["dynamics"]["verdict"] == "not probed"
    assert search(planted.index(), Query("r05", 5.0, like={"dynamics": 1})).hits[0].start_s == 5.0


def test_what_is_the_same_in_all_recordings_makes_none_differ(tmp_path: Path) -> None:
    planted = Planted(tmp_path)
    for recording in planted.recordings:
        path = planted.layout.targets(recording.recording_id)
        fields, windows = load_targets(path), load_targets(path, level="window")
        fields["expression"]["velocity_mean"] = np.asarray(0.1 + 0.2)
        save_targets(path, fields, windows=windows)
    index = planted.index("recordings")
    assert np.isfinite(index.stored(np.arange(N))).all()
    hits = search(index, Query("r05", like={"dynamics": 1}, k=N)).hits
    assert {hit.score for hit in hits} == {1.0}


def test_features_alone_are_read_by_what_stands_in_and_the_answer_says_so(
    planted: Planted, index: Index
) -> None:
    features = np.load(planted.layout.features("segments", "r05"))[2]
    answer = search_features(index, features, Query(like={"dynamics": 1}, k=20))
    (note,) = answer.notes
    assert note.startswith(
        "dynamics: the query has no MIDI to measure it from; read from features instead (R2 0.9"
    )
    truth = planted.values["velocity_mean"]
    found = [truth[int(h.recording_id[1:]), round(h.start_s / 2.5)] for h in answer.hits]
    assert abs(np.mean(found) - truth[5, 2]) < 0.5 * truth.std()
    for aspect, said in (("brightness", "from audio, which"), ("articulation", "from MIDI, which")):
        with pytest.raises(Exception, match=f"measures '{aspect}' {said} the query does not have"):
            search_features(index, features, Query(like={aspect: 1}))
    # All other questions are answered; what cannot be read has no say.
    assert search_features(index, features, Query(ignore=("brightness",))).notes == ()
    more = search_features(index, features, Query(more={"dynamics": 0.1}))
    assert "brightness" not in more.hits[0].contributions
    assert "brightness" not in more.predicted


def test_what_is_measured_of_a_query_is_used(planted: Planted, index: Index) -> None:
    features = np.load(planted.layout.features("segments", "r05"))[2]
    measured = {
        f"windows/{category}/{name}": planted.values[name][5, 2:3]
        for category, name in (
            ("timbre", "spectral_centroid"),
            ("timbre", "spectral_rolloff"),
            ("dynamics", "dynamic_range"),
        )
    }
    answer = search_features(index, features, Query(like={"brightness": 1}), measured)
    first = answer.hits[0]
    assert (first.recording_id, first.start_s, answer.notes) == ("r05", 5.0, ())
    answer = search_features(index, features, Query(like={"dynamic_range": 1}), measured)
    assert "read from audio instead" in answer.notes[0]
    with pytest.raises(Exception, match="2 windows are measured, but there are features of 1"):
        search_features(index, features, Query(), {k: np.tile(v, 2) for k, v in measured.items()})


def test_artifacts_keep_what_is_measured(index: Index, tmp_path: Path) -> None:
    folder = save_artifact(index, tmp_path)
    loaded = load_artifact(folder)
    query = Query("r05", 5.0, 10.0, like={"dynamics": 1, "brightness": 2}, more={"articulation": 1})
    assert search(loaded, query) == search(index, query)
    write_projection(index.projection, tmp_path / "projection.npz")
    again = read_projection(tmp_path / "projection.npz")
    assert again.describe() == index.projection.describe()
    assert "expression/velocity_mean" in again.describe()["columns"]


def test_without_measured_values_nothing_is_fitted_or_built(planted: Planted, index: Index) -> None:
    planted.resolve()
    rows = planted.system.features[ENCODER]
    with pytest.raises(Exception, match=r"measured by timbre/.*: give their values"):
        fit_projection(
            lambda layer: rows[layer].rows,
            range(len(rows)),
            coordinates=fit_coordinates(planted.system),
        )
    with pytest.raises(Exception, match=r"measured targets of recording r00 have shape \(8, 0\)"):
        index_recordings(
            [replace(planted.recordings[0], duration_s=2.5 * (WINDOWS + 1))],
            lambda r: np.load(planted.layout.features("segments", r.recording_id)),
            kind="clips",
            window_s=5.0,
            overlap=0.5,
            projection=index.projection,
            aspects=index.aspects,
            facts={},
        )
