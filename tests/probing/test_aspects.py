"""The aspect map: the registry's contract, the choice of a layer, and mixed or damaged results."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mess_core import stages
from mess_core.errors import ProbingError
from mess_core.files import read_json, write_json
from mess_core.probing import ASPECT_REGISTRY, confidence, resolve_aspects, save_aspects
from mess_core.probing.inference import paired_p
from mess_core.targets.registry import TARGETS, probed_targets
from tests.probing.toy import FACTS, baseline, result, score

pytestmark = pytest.mark.unit

#: Scalars that belong to no aspect on purpose: what warns of another, and what is only kept for
#: comparison with publications. Parts of curves serve aspects where they add something.
UNUSED = {
    *(
        "tempo_octave_ambiguity",
        "rubato_ioi_ratio",
        "note_rate",
        "chord_spread",
        "melody_lead",
        "hand_balance",
        "pedal_changes",
    ),
}


def write_result(folder: Path, target: str, r2: list[float], **changes: Any) -> None:
    write_json(folder / f"{target}.json", result(target, r2, **{"baselines": {}, **changes}))


def resolve(folder: Path, aspect: str, min_r2: float = 0.5) -> dict[str, Any]:
    resolved = resolve_aspects(min_r2, folder)["aspects"][aspect]
    assert isinstance(resolved, dict)
    return resolved


def test_the_registry_has_the_documented_aspects() -> None:
    assert " ".join(ASPECT_REGISTRY) == (
        "brightness tempo rhythmic_energy dynamics dynamic_range crescendo harmonic_richness "
        "tension articulation pedal phrasing timing rubato expressiveness "
        "relative_tempo relative_rubato relative_timing relative_dynamics"
    )


def test_every_aspect_names_targets_that_are_probed_some_of_them_for_windows() -> None:
    for name, aspect in ASPECT_REGISTRY.items():
        assert name == aspect.name
        assert aspect.description
        assert len(set(aspect.measures)) == len(aspect.measures) > 0
        assert set(aspect.measures) <= set(probed_targets())
        kinds = {"midi": aspect.midi, "audio": aspect.targets, "alignment": aspect.aligned}
        for source, targets in kinds.items():
            assert {TARGETS[target].source for target in targets} <= {source}


def test_every_scalar_belongs_to_an_aspect_or_is_left_out_on_purpose() -> None:
    used = {target for aspect in ASPECT_REGISTRY.values() for target in aspect.measures}
    scalars = {n for n, spec in TARGETS.items() if spec.kind == "scalar" and not spec.curve}
    assert scalars - used == UNUSED


def test_the_layer_is_the_best_mean_over_targets_not_the_best_of_one(tmp_path: Path) -> None:
    write_result(tmp_path, "spectral_centroid", [0.90, 0.70, 0.10])
    write_result(tmp_path, "spectral_rolloff", [0.10, 0.75, 0.80])
    brightness = resolve(tmp_path, "brightness")
    assert (brightness["resolved"], brightness["layer"]) == (True, 1)
    assert brightness["r2"] == pytest.approx(0.725)
    given = brightness["confidence"], brightness["reason"], brightness["missing"]
    assert given == ("medium", None, [])
    own = {"layer": 0, "r2": 0.90, "confidence": "high"}
    assert brightness["targets"]["spectral_centroid"] == own


def test_below_the_limit_it_says_why_with_the_numbers(tmp_path: Path) -> None:
    write_result(tmp_path, "spectral_centroid", [0.2, 0.5])
    write_result(tmp_path, "spectral_rolloff", [0.1, -0.3])
    brightness = resolve(tmp_path, "brightness")
    assert (brightness["resolved"], brightness["layer"]) == (False, 1)
    assert brightness["reason"] == (
        "the best layer, 1, has a mean R2 within works of 0.250 (spectral_centroid 0.50, "
        "spectral_rolloff -0.30), below min_r2 0.5"
    )


def test_the_limit_itself_is_enough(tmp_path: Path) -> None:
    write_result(tmp_path, "tempo", [0.5])
    assert resolve(tmp_path, "tempo", 0.5)["resolved"] is True
    assert resolve(tmp_path, "tempo", 0.5001)["resolved"] is False


def test_missing_and_hopeless_targets_are_left_out_and_listed(tmp_path: Path) -> None:
    write_result(tmp_path, "loudness_level", [0.1, 0.9])
    write_result(tmp_path, "velocity_mean", [], reason="0 rows")
    dynamics = resolve(tmp_path, "dynamics")
    assert (dynamics["layer"], dynamics["r2"], dynamics["resolved"]) == (1, 0.9, True)
    assert dynamics["missing"] == ["velocity_mean"]
    energy = resolve(tmp_path, "rhythmic_energy")
    assert energy["missing"] == ["onset_density"]
    assert energy["reason"] == "no result for onset_density"
    assert (energy["sources"], energy["verdict"]) == ([], "not probed")


def losing(own: float, twin: float, descriptors: float) -> dict[str, Any]:
    """What is lost of a target, in each of seven works."""
    return {
        "loss": [own + 0.001 * n for n in range(7)],
        "baselines": {
            "untrained": baseline(0.49, twin),
            "descriptors": baseline(0.31, descriptors),
        },
    }


TRAINED = {**FACTS, "trained": True}


def verdict(folder: Path, **changes: Any) -> tuple[bool, str]:
    write_result(folder, "tempo", [0.2, 0.6], encoder=TRAINED, **changes)
    tempo = resolve(folder, "tempo")
    assert tempo["interval"] == [pytest.approx(0.5), pytest.approx(0.7)]
    return tempo["validated"], tempo["verdict"]


def test_an_aspect_is_validated_where_less_is_lost_than_by_both_baselines(tmp_path: Path) -> None:
    known = "known better than"
    assert verdict(tmp_path, **losing(0.05, 0.1, 0.1)) == (True, f"{known} descriptors tell")
    assert resolve(tmp_path, "tempo")["baselines"] == {"untrained": 0.49, "descriptors": 0.31}
    not_twin = (False, f"not {known} an untrained encoder knows it")
    assert verdict(tmp_path, **losing(0.05, 0.05, 0.1)) == not_twin
    not_descriptors = (False, f"not {known} descriptors tell")
    assert verdict(tmp_path, **losing(0.05, 0.1, 0.05)) == not_descriptors
    without = losing(0.05, 0.1, 0.1)
    without["baselines"]["descriptors"] = None
    assert verdict(tmp_path, **without) == (False, "not compared with descriptors")
    assert verdict(tmp_path) == (False, "not compared with untrained and descriptors")


def test_an_untrained_encoder_validates_nothing(tmp_path: Path) -> None:
    write_result(tmp_path, "tempo", [0.2, 0.6], encoder=FACTS, **losing(0.0, 0.9, 0.9))
    tempo = resolve(tmp_path, "tempo")
    assert max(tempo["p"].values()) < 1e-6
    assert (tempo["validated"], tempo["verdict"]) == (False, "the encoder is untrained")


def test_what_looks_at_many_aspects_needs_more(tmp_path: Path) -> None:
    """A p value of 0.03 is enough for one aspect and not for three."""
    rng = np.random.default_rng(4)
    gains = rng.normal(size=7)
    gains = 0.93 + (gains - gains.mean()) / gains.std(ddof=1)
    assert 0.02 < paired_p(gains.tolist()) < 0.05
    own = {"loss": [0.0] * 7, "baselines": dict.fromkeys(("untrained", "descriptors"))}
    own["baselines"] = {n: {**baseline(0.1), "loss": gains.tolist()} for n in own["baselines"]}
    write_result(tmp_path, "tempo", [0.6], encoder=TRAINED, **own)
    assert resolve(tmp_path, "tempo")["validated"] is True
    for other in ("onset_density", "tension_level"):
        write_result(tmp_path, other, [0.6], encoder=TRAINED, **own)
    tempo = resolve(tmp_path, "tempo")
    assert tempo["p"]["corrected"] == pytest.approx(3 * tempo["p"]["untrained"])
    assert tempo["validated"] is False


def test_targets_of_an_aspect_are_compared_work_by_work_together(tmp_path: Path) -> None:
    """What one target loses in a work another may gain: only their sum counts."""
    seesaw = [0.2, -0.2, 0.2, -0.2, 0.2, -0.2, 0.2]
    for target, sign in (("spectral_centroid", 1), ("spectral_rolloff", -1)):
        loss = [0.1 + sign * value + 0.001 * n for n, value in enumerate(seesaw)]
        lost = losing(0.05, 0.1, 0.1) | {"loss": [0.05 - 0.1 + value for value in loss]}
        write_result(tmp_path, target, [0.6], encoder=TRAINED, **lost)
    assert resolve(tmp_path, "brightness")["validated"] is True


def test_an_aspects_interval_and_baselines_are_means_over_its_targets(tmp_path: Path) -> None:
    twin = {"untrained": baseline(0.4)}
    write_result(tmp_path, "spectral_centroid", [0.9], baselines=twin)
    write_result(tmp_path, "spectral_rolloff", [0.3], baselines={"untrained": baseline(0.1)})
    brightness = resolve(tmp_path, "brightness")
    assert brightness["interval"] == [pytest.approx(0.5), pytest.approx(0.7)]
    assert brightness["baselines"] == {"untrained": pytest.approx(0.25)}


def test_an_r2_below_zero_counts_as_zero_also_in_its_interval(tmp_path: Path) -> None:
    write_result(tmp_path, "spectral_centroid", [0.3, 0.2])
    write_result(tmp_path, "spectral_rolloff", [-50.0, 0.05])
    brightness = resolve(tmp_path, "brightness")
    assert (brightness["layer"], brightness["r2"]) == (0, pytest.approx(0.15))
    assert brightness["interval"] == [pytest.approx(0.1), pytest.approx(0.2)]


def test_where_no_work_varies_the_pooled_r2_counts(tmp_path: Path) -> None:
    pooled = score(0, 0.6, r2_within=None, interval_within=None)
    write_result(tmp_path, "tempo", [0.6], layers=[pooled])
    tempo = resolve(tmp_path, "tempo")
    assert tempo["r2"] == 0.8
    assert tempo["interval"] == pytest.approx([0.7, 0.9])


def test_every_aspect_is_in_the_map_and_it_is_saved_as_it_is(tmp_path: Path) -> None:
    write_result(tmp_path, "tempo", [0.3, 0.85])
    resolved = resolve_aspects(0.5, tmp_path)
    assert set(resolved["aspects"]) == set(ASPECT_REGISTRY)
    assert resolved["encoder"] == FACTS
    origin = [resolved[name] for name in ("dataset", "stage", "min_r2")]
    assert origin == ["toy", stages.ASPECTS, 0.5]
    path = tmp_path / "aspects.json"
    save_aspects(resolved, path)
    assert read_json(path) == resolved


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dataset": "other"}, "of dataset"),
        ({"encoder": {**FACTS, "weights_sha256": "cd" * 32}}, "of encoder"),
        ({"stage": stages.PROBING + 1}, "of stage"),
        ({"unit": "recordings"}, "of unit"),
        ({"layers": [score(0, 0.5)]}, "number of layers"),
    ],
)
def test_results_that_do_not_belong_together_are_refused(
    tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    write_result(tmp_path, "tempo", [0.5, 0.6])
    write_result(tmp_path, "rubato", [0.5, 0.6], **change)
    with pytest.raises(ProbingError, match=words):
        resolve_aspects(0.5, tmp_path)


@pytest.mark.parametrize(("content", "lacks"), [([], "target"), ({"target": "tempo"}, "category")])
def test_a_malformed_result_is_named(tmp_path: Path, content: Any, lacks: str) -> None:
    write_json(tmp_path / "tempo.json", content)
    with pytest.raises(ProbingError, match=rf"tempo\.json is no probing result: it lacks {lacks}"):
        resolve_aspects(0.5, tmp_path)


@pytest.mark.parametrize(
    "layers",
    [None, [{"layer": 0}], [score(1, 0.5)], [{"layer": 0, "r2": 0.5}], [0.5]],
)
def test_malformed_layers_are_named(tmp_path: Path, layers: Any) -> None:
    write_result(tmp_path, "tempo", [0.5], layers=layers)
    with pytest.raises(ProbingError, match=r"tempo\.json: its layers"):
        resolve_aspects(0.5, tmp_path)


def test_a_result_under_another_name_is_refused(tmp_path: Path) -> None:
    write_result(tmp_path, "tempo", [0.5])
    (tmp_path / "tempo.json").rename(tmp_path / "rubato.json")
    with pytest.raises(ProbingError, match="holds the result of 'tempo'"):
        resolve_aspects(0.5, tmp_path)


def test_an_empty_folder_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(ProbingError, match="run the probing rule"):
        resolve_aspects(0.5, tmp_path)


def test_confidence_has_strict_limits() -> None:
    expected = {1.0: "high", 0.81: "high", 0.8: "medium", 0.51: "medium", 0.5: "low", -3: "low"}
    assert {r2: confidence(r2) for r2 in expected} == expected
    assert confidence(None) == "low"
