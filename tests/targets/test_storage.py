"""Targets on disk: exact, deterministic, and never unpickled."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from mess_core.errors import TargetError
from mess_core.targets import (
    load_target,
    load_targets,
    save_targets,
    validate_target_structure,
)
from mess_core.targets.registry import CATEGORIES, TARGETS

pytestmark = pytest.mark.unit

Targets = dict[str, dict[str, npt.NDArray[np.float64]]]
SEGMENTS = 3


def make(*leading: int) -> Targets:
    """Every field with values that occur once."""
    made: Targets = {category: {} for category in CATEGORIES}
    for i, spec in enumerate(s for s in TARGETS.values() if not s.aligned):
        shape = (*leading, *spec.shape)
        numbers = np.arange(np.prod(shape, dtype=int)).reshape(shape)
        made[spec.category][spec.name] = i + 0.25 + numbers / 1024
    return made


@pytest.fixture
def targets() -> Targets:
    """Every target of a recording; one scalar undefined."""
    made = make()
    made["rhythm"]["tempo"] = np.array(np.nan)
    return made


@pytest.fixture
def windows() -> Targets:
    """Every target of three windows; one value undefined."""
    made = make(SEGMENTS)
    made["rhythm"]["tempo"][1] = np.nan
    return made


def assert_same(a: Targets, b: Targets) -> None:
    assert {key: set(value) for key, value in a.items()} == {k: set(v) for k, v in b.items()}
    for category, fields in a.items():
        for name, array in fields.items():
            np.testing.assert_array_equal(array, b[category][name])
            assert b[category][name].dtype == np.float64


def test_what_is_saved_is_loaded(tmp_path: Path, targets: Targets) -> None:
    path = tmp_path / "new" / "a_targets.npz"
    save_targets(path, targets)
    assert_same(targets, load_targets(path))
    with zipfile.ZipFile(path) as archive:
        assert "expression/rubato.npy" in archive.namelist()
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_windows_are_in_the_same_file(tmp_path: Path, targets: Targets, windows: Targets) -> None:
    path = tmp_path / "a_targets.npz"
    save_targets(path, targets, windows=windows)
    assert_same(targets, load_targets(path))
    assert_same(windows, load_targets(path, level="window"))
    with zipfile.ZipFile(path) as archive:
        assert "windows/rhythm/tempo.npy" in archive.namelist()


def test_what_a_file_does_not_hold_is_named(tmp_path: Path, targets: Targets) -> None:
    save_targets(tmp_path / "a.npz", targets)
    with pytest.raises(TargetError, match=r"a\.npz: no windows; delete it"):
        load_targets(tmp_path / "a.npz", level="window")
    with pytest.raises(TargetError, match="does not exist; run the rule"):
        load_targets(tmp_path / "none.npz", level="window")


@pytest.mark.parametrize(
    ("part", "key", "value", "message"),
    [
        ("targets", "rythm/tempo", np.array(1.0), "no category; did you mean 'rhythm'"),
        ("targets", "rhythm/swing", np.array(1.0), "rhythm/swing is unknown"),
        ("targets", "rhythm/tempo", np.array([1.0]), r"has the shape \(1,\), a scalar has \(\)"),
        ("targets", "dynamics/loudness_curve", np.zeros(63), r"_curve has the shape \(63,\)"),
        ("targets", "timbre/spectral_centroid", np.array(np.inf), "spectral_centroid is infinite"),
        ("targets", "timbre/spectral_centroid", np.array(1, np.float32), "is float32, expected"),
        ("targets", "timbre/spectral_centroid", np.array(None), "is object, expected float64"),
        ("targets", "expression/rubato", 3, "expression/rubato is int64"),
        ("windows", "rhythm/tempo", np.zeros(2), r"has the shape \(2,\), a scalar has \(3,\)"),
        ("windows", "rhythm/tempo", np.array(1.0), r"has the shape \(\), a scalar has \(3,\)"),
        ("windows", "dynamics/loudness_curve", np.zeros((3, 63)), r"\(3, 63\), .* has \(3, 64\)"),
        ("windows", "phrasing/arches", np.zeros(3), "phrasing/arches is unknown"),
    ],
)
def test_what_is_malformed_is_named_and_not_written(
    tmp_path: Path,
    targets: Targets,
    windows: Targets,
    part: str,
    key: str,
    value: Any,
    message: str,
) -> None:
    parts: dict[str, Any] = {"targets": targets, "windows": windows}
    category, _, name = key.partition("/")
    parts[part][category] = parts[part].pop(category, {}) | {name: value}
    with pytest.raises(TargetError, match=message):
        save_targets(tmp_path / "a.npz", **parts)
    assert list(tmp_path.iterdir()) == []


def test_equal_targets_give_equal_bytes_in_any_order(tmp_path: Path, targets: Targets) -> None:
    backwards = {k: dict(reversed(v.items())) for k, v in reversed(targets.items())}
    save_targets(tmp_path / "a.npz", targets)
    save_targets(tmp_path / "b.npz", backwards)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_all_that_is_missing_is_named(targets: Targets) -> None:
    del targets["harmony"], targets["rhythm"]["tempo"], targets["expression"]["rubato"]
    with pytest.raises(TargetError) as caught:
        validate_target_structure(targets)
    for part in ("category 'harmony' is missing", "rhythm/tempo is missing", "expression/rubato"):
        assert part in str(caught.value)


@pytest.mark.parametrize("size", [0, 10, 500, -1])
def test_a_damaged_file_is_named(tmp_path: Path, targets: Targets, size: int) -> None:
    path = tmp_path / "a.npz"
    save_targets(path, targets)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(TargetError, match=r"a\.npz is damaged"):
        load_targets(path)


def test_every_flipped_byte_is_noticed_or_harmless(
    tmp_path: Path, targets: Targets, windows: Targets
) -> None:
    path = tmp_path / "a.npz"
    save_targets(path, targets, windows=windows)
    whole = path.read_bytes()
    for position in range(0, len(whole), 211):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0xFF]) + whole[position + 1 :])
        try:
            assert_same(targets, load_targets(path))
            assert_same(windows, load_targets(path, level="window"))
        except TargetError as error:
            assert "a.npz" in str(error)  # noqa: PT017


@pytest.mark.parametrize("value", [np.array(1.0), np.array({"a": 1.0}, dtype=object)])
def test_unknown_keys_in_a_file_are_named(tmp_path: Path, value: Any) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, tempo=value)
    with pytest.raises(TargetError, match="'tempo' is not of the form category/field"):
        load_targets(path)


class Bomb:
    """Writes a file when it is unpickled by pickle itself."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def legacy(path: Path, **categories: Any) -> Path:
    arrays: dict[str, Any] = {k: np.array(v, dtype=object) for k, v in categories.items()}
    np.savez(path, **arrays)
    return path


def test_the_older_form_is_read(tmp_path: Path) -> None:
    old = {"tempo": 120.0, "onset_density": np.float32(2.5), "curve": np.arange(3)}
    path = legacy(tmp_path / "old.npz", rhythm=old, dynamics={"dynamic_range": np.array(12.0)})
    loaded = load_targets(path)
    assert set(loaded) == {"rhythm", "dynamics"}
    assert loaded["rhythm"]["tempo"] == 120
    assert loaded["rhythm"]["onset_density"].dtype == np.float64
    np.testing.assert_array_equal(loaded["rhythm"]["curve"], [0.0, 1.0, 2.0])


def test_a_malicious_pickle_is_refused_without_running(tmp_path: Path) -> None:
    trace = tmp_path / "ran"
    path = legacy(tmp_path / "bad.npz", rhythm={"tempo": Bomb(trace)})
    with pytest.raises(TargetError, match=r"bad\.npz: rhythm is refused \(it asks for"):
        load_targets(path)
    assert not trace.exists()
    np.load(path, allow_pickle=True)["rhythm"]  # the bomb is real
    assert trace.exists()


@pytest.mark.parametrize("name", ["os system", "builtins eval", "numpy.lib.npyio load"])
def test_no_other_name_is_resolved(tmp_path: Path, name: str) -> None:
    module, function = name.split()
    header = legacy(tmp_path / "a.npz", rhythm={})
    with zipfile.ZipFile(header) as archive:
        entry = archive.read("rhythm.npy")
    start = entry.index(b"\n") + 1
    program = f"c{module}\n{function}\n(Vtrue\ntR.".encode()
    with zipfile.ZipFile(header, "w") as archive:
        archive.writestr("rhythm.npy", entry[:start] + program)
    with pytest.raises(TargetError, match=f"asks for {module}.{function}"):
        load_targets(header)


def test_damaged_and_foreign_pickles_are_refused(tmp_path: Path) -> None:
    for value, message in [
        ([1, 2], "rhythm is refused .*no single object"),
        ("text", "rhythm is refused .*a str instead of a dict"),
        ({"a": "b"}, "could not convert string"),
    ]:
        with pytest.raises(TargetError, match=message):
            load_targets(legacy(tmp_path / "a.npz", rhythm=value))


def test_one_target_is_read_whatever_else_is_there(
    tmp_path: Path, targets: Targets, windows: Targets
) -> None:
    path = tmp_path / "a.npz"
    save_targets(path, targets, windows=windows)
    tempo = load_target(path, "tempo")
    assert tempo is not None
    np.testing.assert_array_equal(tempo, windows["rhythm"]["tempo"])
    curve = load_target(path, "loudness_curve", level="recording")
    assert curve is not None
    np.testing.assert_array_equal(curve, targets["dynamics"]["loudness_curve"])
    # Written when the registry had another target more, and one less.
    with np.load(path) as stored:
        arrays: dict[str, Any] = {
            key: stored[key] for key in stored.files if not key.endswith("/tempo")
        }
    arrays["windows/timbre/another"] = np.zeros(SEGMENTS)
    np.savez(path, **arrays)
    assert load_target(path, "spectral_centroid") is not None
    with pytest.raises(TargetError, match=r"a\.npz: windows/rhythm/tempo is missing; delete it"):
        load_target(path, "tempo")


def test_one_target_may_be_optional(tmp_path: Path, targets: Targets, windows: Targets) -> None:
    path = tmp_path / "a.npz"
    del targets["expression"], windows["expression"]
    save_targets(path, targets, windows=windows)
    assert "expression" not in load_targets(path)
    assert load_target(path, "rubato") is None
    assert load_target(path, "rubato", level="recording") is None


@pytest.mark.parametrize(
    "value", [np.zeros((SEGMENTS, 2)), np.zeros(SEGMENTS, np.float32), np.full(SEGMENTS, np.inf)]
)
def test_one_malformed_target_is_named(tmp_path: Path, value: npt.NDArray[Any]) -> None:
    arrays: dict[str, Any] = {"windows/rhythm/tempo": value}
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(TargetError, match=r"a\.npz: rhythm/tempo (is|has)"):
        load_target(tmp_path / "a.npz", "tempo")
