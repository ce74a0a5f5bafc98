"""Shards are stable, and exactly what matters to a stage changes its params."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mess_core import stages
from mess_core.errors import DatasetError
from mess_core.extraction.specs import MODELS
from mess_core.files import write_json
from mess_core.layout import QUESTIONS
from mess_core.recordings import Recording, shard_of, write_recordings
from mess_core.targets import registry
from mess_core.workflow.config import Settings
from mess_core.workflow.plan import Plan

pytestmark = pytest.mark.unit

SETTINGS = Settings(
    dataset="x",
    encoder="mess-small",
    precision="float32",
    shards=3,
    targets=("tempo", "rubato"),
    alphas=(1.0, 10.0),
    destination="out",
)


def recording(name: str, **changes: Any) -> Recording:
    facts = Recording(
        recording_id=name,
        work_id=f"w{name}",
        performer="p",
        composer="c",
        title="t",
        split="",
        audio=f"{name}.wav",
        midi=f"{name}.mid",
        beats="",
        audio_sha256=f"a{name}",
        midi_sha256=f"m{name}",
        beats_sha256="",
        duration_s=20.0,
        status="ok",
        reason="",
    )
    return replace(facts, **changes)


#: Params of features and of targets, of single shards and of all.
ENCODED = {"features", "all-features", "untrained-features", "all-untrained-features"}
DESCRIBED = {"descriptors-features", "all-descriptors-features"}
FEATURES = ENCODED | DESCRIBED
#: Those of the encoder alone, where there is no baseline.
ENCODED_ALONE = {"features", "all-features"}
TARGETS = {"targets", "all-targets"}
ALIGNMENTS = {"alignments", "all-alignments"}
JUDGED = {"evaluation", "counterfactuals"}
#: What depends on which rows are probed.
ROWS = {"aspects", "decomposition", "probing", "projection", "question"}
#: The last four are performances of two works.
RECORDINGS = tuple(recording(str(n), work_id=f"w{n}" if n < 16 else f"v{n % 2}") for n in range(20))


def params(settings: Settings, recordings: tuple[Recording, ...]) -> dict[str, Any]:
    """All params of all rules, by rule."""
    plan = Plan(settings, recordings)
    found: dict[str, Any] = {
        "aspects": plan.aspects_params(),
        "index": plan.index_params("clips"),
        "publish": plan.publish_params(),
        "probing": plan.probing_params("tempo"),
        "decomposition": plan.decomposition_params("encoder"),
        "geometry": plan.geometry_params(),
        "projection": plan.projection_params("clips"),
        "question": plan.question_params("layers"),
        "validity": plan.validity_params(),
        "performances": plan.performances_params(),
        "evaluation": plan.evaluation_params(),
        "counterfactuals": plan.counterfactuals_params(),
        "report": plan.report_params({}),
        "untrained": plan.untrained_params(),
        "all-targets": plan.gather_targets_params(),
        "all-alignments": plan.gather_alignments_params(),
    }
    for source in settings.sources:
        name = "features" if source == "encoder" else f"{source}-features"
        found[f"all-{name}"] = plan.gather_features_params(source)
        for shard in plan.shards:
            found[f"{name} {shard}"] = plan.features_params(source, shard)
    for shard in plan.shards:
        found[f"targets {shard}"] = plan.targets_params(shard)
    for shard in plan.works:
        found[f"alignments {shard}"] = plan.alignments_params(shard)
    return found


def changed(settings: Settings, recordings: tuple[Recording, ...]) -> set[str]:
    """The stages whose params differ from those of the unchanged plan."""
    before, after = params(SETTINGS, RECORDINGS), params(settings, recordings)
    return {name.split()[0] for name in after if before.get(name) != after[name]}


def test_a_recordings_shard_does_not_depend_on_the_others() -> None:
    whole = Plan(SETTINGS, RECORDINGS).shards
    assert set(whole) == {"0", "1", "2"}
    assert sorted(r.recording_id for members in whole.values() for r in members) == sorted(
        r.recording_id for r in RECORDINGS
    )
    fewer = Plan(SETTINGS, RECORDINGS[5:]).shards
    for name, members in fewer.items():
        assert set(members) <= set(whole[name])
    # Pinned: another hash would rename every shard of every corpus.
    assert [shard_of(name, 16) for name in ("a", "b", "c")] == ["10", "10", "02"]


def test_params_are_builtins_only() -> None:
    def check(value: Any) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                assert type(key) is str
                check(item)
        elif isinstance(value, list):
            for item in value:
                check(item)
        else:
            assert type(value) in (str, int, float, bool, type(None)), value

    check(params(SETTINGS, RECORDINGS))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            {"window_s": 4.0},
            FEATURES
            | TARGETS
            | ALIGNMENTS
            | ROWS
            | JUDGED
            | {"validity", "geometry", "index", "report"},
        ),
        ({"overlap": 0.25}, FEATURES | TARGETS | ALIGNMENTS | {"geometry", "index"}),
        ({"encoder": "MERT-v1-95M"}, ENCODED | ROWS | JUDGED | {"untrained", "geometry", "index"}),
        ({"n_folds": 4}, ROWS),
        ({"rows": "recordings"}, ROWS | {"validity"}),
        ({"alphas": (10.0, 1.0)}, ROWS - {"decomposition"}),
        ({"baselines": ("untrained",)}, (ROWS - {"decomposition"}) | {"evaluation"}),
        (
            {"encoder": "descriptors"},
            ENCODED_ALONE | ROWS | {"untrained", "index", "counterfactuals", "evaluation"},
        ),
        ({"min_r2": 0.4}, {"aspects"}),
        ({"learn": False}, {"projection", "evaluation"}),
        ({"source": "probed"}, {"aspects"}),
        ({"exact_up_to": 2_000_000}, {"index"}),
        ({"memory_gb": 8.0}, {"index"}),
        ({"destination": "s3://b/p"}, {"publish"}),
        ({"device": "cuda"}, set()),
        ({"batch_size": 8}, set()),
        ({"precision": "bfloat16"}, ENCODED | {"counterfactuals"}),
        ({"counterfactuals": 4}, {"counterfactuals"}),
        ({"save_raw": True}, {"features"}),
        ({"raw_dtype": "float16"}, set()),
        ({"save_raw": True, "raw_dtype": "float16"}, {"features"}),
        (
            {"targets": ("tempo",)},
            {"aspects", "question", "geometry", "projection", "validity", "all-targets"},
        ),
        ({"tracking_uri": "sqlite:///x.db"}, set()),
    ],
)
def test_a_setting_makes_stale_what_it_matters_to(
    change: dict[str, Any], expected: set[str]
) -> None:
    assert changed(replace(SETTINGS, **change), RECORDINGS) == expected


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"audio_sha256": "new"}, FEATURES | TARGETS),
        ({"midi_sha256": "new"}, TARGETS | {"counterfactuals"}),
        ({"beats_sha256": "new"}, TARGETS | JUDGED | {"geometry"}),
        (
            {"work_id": "new"},
            ROWS | {"validity", "geometry", "index", "performances", "counterfactuals"},
        ),
        ({"performer": "new"}, {"geometry", "index", "performances"}),
        ({"audio": "elsewhere.wav", "midi": "elsewhere.mid"}, set()),
    ],
)
def test_a_recordings_change_makes_stale_what_it_matters_to(
    change: dict[str, Any], expected: set[str]
) -> None:
    recordings = (replace(RECORDINGS[0], **change), *RECORDINGS[1:])
    assert changed(SETTINGS, recordings) == expected


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"audio_sha256": "new"}, FEATURES | TARGETS | ALIGNMENTS),
        ({"midi_sha256": "new"}, TARGETS | ALIGNMENTS),
        ({"beats_sha256": "new"}, TARGETS | ALIGNMENTS | {"geometry", "evaluation"}),
        ({"performer": "new"}, {"geometry", "index", "performances"}),
        # The one that is left of its work is alone. Targets that depend on it are gathered anew.
        (
            {"work_id": "new"},
            ROWS
            | {"all-alignments", "validity", "geometry", "index", "performances", "all-targets"},
        ),
    ],
)
def test_a_performances_change_makes_its_work_stale(
    change: dict[str, Any], expected: set[str]
) -> None:
    recordings = (*RECORDINGS[:-1], replace(RECORDINGS[-1], **change))
    assert changed(SETTINGS, recordings) == expected


def test_counterfactuals_are_of_one_recording_with_midi_of_each_work(tmp_path: Path) -> None:
    settings = replace(SETTINGS, counterfactuals=100, data=tmp_path)
    silent = (*RECORDINGS[:10], *(replace(r, midi="", midi_sha256="") for r in RECORDINGS[10:16]))
    chosen = Plan(settings, (*silent, *RECORDINGS[16:])).varied
    assert [r.work_id for r in chosen] == ["w0", "w1", "v0", "v1", *(f"w{n}" for n in range(2, 10))]
    assert [r.recording_id for r in chosen][2:4] == ["16", "17"]
    # The order of the table does not matter; nothing can be made without MIDI or a model.
    assert Plan(settings, (*RECORDINGS[16:][::-1], *silent)).varied == chosen
    assert Plan(replace(settings, counterfactuals=3), silent).varied == chosen[:2] + chosen[4:5]
    assert not Plan(settings, silent[10:]).varied
    hub = Plan(replace(settings, encoder="MERT-v1-95M"), RECORDINGS)
    assert not hub.varied
    # A model that is removed afterwards takes nothing away.
    write_json(settings.layout.counterfactuals, {})
    assert Plan(hub.settings, RECORDINGS).varied


def test_judgments_of_a_datasets_recordings_make_stale_what_reads_them(tmp_path: Path) -> None:
    settings = replace(SETTINGS, data=tmp_path)
    folder = settings.layout.judgments
    folder.mkdir()

    def counts() -> list[list[str]]:
        plan = Plan(settings, RECORDINGS)
        both = plan.evaluation_params(), plan.geometry_params()
        return [[*of["stale_with"]["judgments"]] for of in both]

    for name, recording_id, aspect in (("a", "7", "overall"), ("b", "7", "tempo"), ("c", "x", "x")):
        line = json.dumps({"aspect": aspect, "anchor": {"recording_id": recording_id}})
        (folder / f"{name}.jsonl").write_text(line)
    (folder / "d.csv").write_text("rater,clip,fast\r\np,19,4.5\r\n")
    (folder / "e.csv").write_text("rater,clip,fast\np,z,4.5\n")
    assert counts() == [["a.jsonl", "b.jsonl", "d.csv"], ["a.jsonl", "d.csv"]]
    # What cannot be read stops no plan.
    (folder / "f.jsonl").mkdir()
    (folder / "g.csv").write_bytes(b"\xff\x00")
    assert counts() == [["a.jsonl", "b.jsonl", "d.csv"], ["a.jsonl", "d.csv"]]


def test_one_more_performance_concerns_its_works_shard_only() -> None:
    settings = replace(SETTINGS, shards=16)
    before = Plan(settings, RECORDINGS)
    after = Plan(settings, (*RECORDINGS, recording("new", work_id="v0")))
    assert len(before.works) == 2
    own = shard_of("v0", 16)
    changed = [
        shard
        for shard in after.works
        if before.alignments_params(shard) != after.alignments_params(shard)
    ]
    assert changed == [own]


def test_only_what_needs_alignments_waits_for_them(tmp_path: Path) -> None:
    """A target of audio is gathered, whatever becomes of a work."""
    settings = replace(SETTINGS, data=tmp_path, targets=("tempo", "rubato", "relative_tempo"))
    plan = Plan(settings, RECORDINGS)
    given = plan.gather_targets_params()
    assert given["targets"]["relative_tempo"] == {}
    assert given["alignments"] == plan.alignment_inputs
    for name, shards in given["targets"].items():
        content = {"shards": shards, "alignments": plan.alignment_inputs}
        write_json(settings.layout.target_manifest(name), content)
    assert Plan(settings, RECORDINGS).ungathered == ()
    moved = replace(RECORDINGS[-1], work_id="v0")
    assert Plan(settings, (*RECORDINGS[:-1], moved)).ungathered == ("rubato", "relative_tempo")
    # A shard in which something failed is gathered anew.
    content = {"shards": {}, "alignments": dict(list(plan.alignment_inputs.items())[1:])}
    write_json(settings.layout.target_manifest("relative_tempo"), content)
    assert Plan(settings, RECORDINGS).ungathered == ("relative_tempo",)


def test_without_works_of_two_recordings_nothing_is_aligned(tmp_path: Path) -> None:
    settings = replace(SETTINGS, data=tmp_path)
    plan = Plan(settings, RECORDINGS[:16])
    assert plan.works == {}
    assert not plan.has_alignments, "an empty manifest takes the place of an older one"
    write_json(settings.layout.alignments_manifest, {"shards": {}})
    assert Plan(settings, RECORDINGS[:16]).has_alignments
    assert not Plan(settings, RECORDINGS).has_alignments
    nameless = tuple(replace(r, work_id="") for r in RECORDINGS)
    assert Plan(settings, nameless).works == {}


def test_the_report_lists_problems_and_settings_and_is_stale_with_them() -> None:
    plan = Plan(SETTINGS, RECORDINGS)
    broken = recording("b", status="silent", reason="nothing to hear")
    before = plan.report_params({})
    assert replace(plan, problems=(broken,)).report_params({}) != before
    assert plan.report_params({"probing.n_folds": 3}) != before


def test_the_problems_of_a_plan_are_the_rows_with_a_reason(tmp_path: Path) -> None:
    settings = replace(SETTINGS, data=tmp_path)
    odd = recording("odd", reason="its MIDI cannot be read")
    broken = recording("broken", status="silent", reason="nothing to hear")
    write_recordings(settings.layout.table, [recording("good"), odd, broken])
    plan = Plan.read(settings)
    assert [r.recording_id for r in plan.recordings] == ["good", "odd"]
    assert [r.recording_id for r in plan.problems] == ["broken", "odd"]


def test_the_demos_interpretations_make_its_validity_stale(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plans = [Plan(replace(SETTINGS, dataset=name), RECORDINGS) for name in ("x", "demo")]
    before = [plan.validity_params() for plan in plans]
    monkeypatch.setattr(stages, "DEMO", stages.DEMO + 1)
    after = [plan.validity_params() for plan in plans]
    assert before[0] == after[0]
    assert before[1] != after[1]


def test_one_more_recording_concerns_its_own_shard_only() -> None:
    before = params(SETTINGS, RECORDINGS)
    after = params(SETTINGS, (*RECORDINGS, recording("new")))
    own = shard_of("new", SETTINGS.shards)
    shards = {name for name in after if " " in name and before[name] != after[name]}
    kinds = ("features", "untrained-features", "descriptors-features", "targets")
    assert shards == {f"{kind} {own}" for kind in kinds}


def test_a_target_of_no_aspect_concerns_no_answer_about_aspects_or_rows() -> None:
    more = replace(SETTINGS, targets=(*SETTINGS.targets, "tempo_octave_ambiguity"))
    before, after = Plan(SETTINGS, RECORDINGS), Plan(more, RECORDINGS)
    asked = {q for q in QUESTIONS if before.question_params(q) != after.question_params(q)}
    assert asked == {"layers", "stability"}


def test_what_is_gathered_is_judged_by_content(tmp_path: Path) -> None:
    settings = replace(SETTINGS, data=tmp_path)

    def has(recordings: tuple[Recording, ...] = RECORDINGS, source: str = "encoder") -> bool:
        return Plan(settings, recordings).has_features(source)

    assert not has()
    shards = Plan(settings, RECORDINGS).features_inputs["encoder"]
    write_json(settings.layout.features_manifest, {"shards": shards})
    assert has()
    assert not has(RECORDINGS[1:])
    assert not has(source="untrained")
    settings.layout.features_manifest.write_text("[]")
    assert not has()


def test_each_target_is_gathered_for_itself(tmp_path: Path) -> None:
    settings = replace(SETTINGS, data=tmp_path)
    plan = Plan(settings, RECORDINGS)
    wanted = ("tempo", "rubato")
    assert plan.ungathered == wanted
    write_json(settings.layout.target_manifest("tempo"), {"shards": plan.target_inputs["tempo"]})
    assert Plan(settings, RECORDINGS).ungathered == ("rubato",)
    assert Plan(settings, RECORDINGS[1:]).ungathered == wanted


def test_a_changed_definition_makes_its_own_target_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    before = Plan(SETTINGS, RECORDINGS)
    inputs, shard = before.target_inputs, before.targets_params("0")
    changed = replace(registry.TARGETS["tempo"], version=9)
    monkeypatch.setitem(registry.TARGETS, "tempo", changed)
    after = Plan(SETTINGS, RECORDINGS)
    assert {name for name in inputs if after.target_inputs[name] != inputs[name]} == {"tempo"}
    assert after.targets_params("0") != shard
    # Counterfactuals are measured by audio alone.
    assert after.counterfactuals_params() == before.counterfactuals_params()


def test_the_baselines_have_files_and_encoders_of_their_own() -> None:
    plan = Plan(SETTINGS, RECORDINGS)
    assert SETTINGS.sources == ("encoder", "untrained", "descriptors")
    folders = [SETTINGS.layout.of(source).embeddings.name for source in SETTINGS.sources]
    assert folders == ["x-emb", "x-untrained-emb", "x-descriptors-emb"]
    described = plan.features_params("descriptors", "0")
    assert (described["encoder"], described["precision"]) == ("descriptors", "float32")
    assert plan.layers == {"encoder": 7, "untrained": 7, "descriptors": 8}
    encoder = plan.features_params("untrained", "0")["encoder"]
    assert encoder == plan.untrained_params()["folder"]
    assert encoder == "data/models/mess-small-untrained"
    assert replace(SETTINGS, baselines=()).sources == ("encoder",)
    # Descriptors are compared with nothing: they are neither trained nor untrained.
    assert Plan(replace(SETTINGS, encoder="descriptors"), RECORDINGS).layers == {"encoder": 8}


def test_missing_weights_are_said_where_features_have_to_be_made(tmp_path: Path) -> None:
    settings = replace(SETTINGS, data=tmp_path, encoder="MERT-v1-95M")
    plan = Plan(settings, RECORDINGS)
    for source in ("encoder", "untrained"):
        told = plan.missing_weights(source, "0")
        assert told.startswith(f"the weights of MERT-v1-95M are not in {tmp_path}/models. With a")
        assert "`encoder: mess-small` (trained, piano only) or `encoder: descriptors`" in told
    assert not plan.missing_weights("descriptors", "0")
    receipt = settings.layout.receipt("features", "0")
    write_json(receipt, {"inputs": "another encoder's"})
    assert plan.missing_weights("encoder", "0")
    write_json(receipt, {"inputs": plan.features_inputs["encoder"]["0"]})
    assert not plan.missing_weights("encoder", "0")
    (tmp_path / "models/MERT-v1-95M").mkdir(parents=True)
    assert plan.missing_weights("encoder", "1"), "an empty folder holds no weights"
    (tmp_path / "models/MERT-v1-95M/config.json").touch()
    assert not plan.missing_weights("encoder", "1")


def test_another_definition_of_descriptors_makes_their_features_stale(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def inputs(encoder: str) -> dict[str, str]:
        plan = Plan(replace(SETTINGS, encoder=encoder), RECORDINGS)
        return {source: shards["0"] for source, shards in plan.features_inputs.items()}

    names = ("mess-small", "descriptors")
    before = [inputs(name) for name in names]
    spec = replace(MODELS["descriptors"], fingerprint="another")
    monkeypatch.setitem(MODELS, "descriptors", spec)
    after = [inputs(name) for name in names]
    assert {s for s in before[0] if before[0][s] != after[0][s]} == {"descriptors"}
    assert before[1]["encoder"] != after[1]["encoder"]


def test_only_usable_recordings_of_a_windows_length_are_planned(tmp_path: Path) -> None:
    settings = replace(SETTINGS, data=tmp_path)
    with pytest.raises(DatasetError, match="does not exist"):
        Plan.read(settings)
    rows = [
        recording("good"),
        recording("short", duration_s=4.9),
        recording("bad", status="silent", reason="r"),
        recording("long-enough", status="too_short", reason="by another window"),
    ]
    write_recordings(settings.layout.table, rows)
    names = [r.recording_id for r in Plan.read(settings).recordings]
    assert names == ["good", "long-enough"]


def test_a_local_model_is_known_by_its_content(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    config = '{"conv_stride": [5, 2], "num_hidden_layers": 2, "hidden_size": 4}'
    (folder / "config.json").write_text(config)
    (folder / "preprocessor_config.json").write_text('{"sampling_rate": 24000}')
    (folder / "model.safetensors").write_bytes(b"one")
    settings = replace(SETTINGS, data=tmp_path, encoder=str(folder))

    def digest() -> Any:
        return Plan(settings, RECORDINGS).features_params("encoder", "0")["inputs"]

    first = digest()
    (folder / "model.safetensors").touch()
    assert digest() == first
    (folder / "model.safetensors").write_bytes(b"other")
    assert digest() != first
