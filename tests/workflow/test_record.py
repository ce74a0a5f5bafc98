"""Every job leaves a record of how its outputs were made, and a result leads to it."""

import subprocess
from pathlib import Path

import pytest

from mess_core.errors import StorageError
from mess_core.files import file_sha256, read_json, write_json
from mess_core.layout import Layout
from mess_core.workflow import record
from mess_core.workflow.record import find_record, write_record

pytestmark = pytest.mark.unit


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path / "data", "x")
    layout.metadata.mkdir(parents=True)
    layout.table.write_text("the table")
    return layout


def test_a_record_says_what_was_made_of_what(layout: Layout) -> None:
    write_json(layout.features_manifest, {"encoder": {"name": "m"}})
    output, read = layout.probe("tempo"), layout.target_manifest("tempo")
    for path in (output, read):
        write_json(path, {"of": path.name})
    uri = "postgresql://me:secret@host/db"
    write_record(layout, outputs=[output], inputs=[read], rule="probing", config={"uri": uri})
    found = find_record(output)
    assert found["outputs"] == {str(output): file_sha256(output)}
    assert found["inputs"] == {str(p): file_sha256(p) for p in (read, layout.table)}
    assert (found["rule"], found["encoder"], found["stages"]["demo"]) == (
        "probing",
        {"name": "m"},
        1,
    )
    assert found["config"] == {"uri": "postgresql://***@host/db"}
    assert found["libraries"]["numpy"] == record.versions()["numpy"]


def test_what_shards_and_folders_hold_leads_to_the_record_of_their_receipt(layout: Layout) -> None:
    for kind, shard, name in (
        ("features", "0", "a"),
        ("features", "1", "b"),
        ("targets", "0", "a"),
    ):
        receipt = layout.receipt(kind, shard)
        write_json(receipt, {"recordings": {name: {}}})
        write_record(layout, outputs=[receipt], rule=f"{kind} {shard}")
    write_json(layout.index_receipt("clips"), {})
    write_record(layout, outputs=[layout.index_receipt("clips")], rule="index")
    for path, rule in (
        (layout.features("segments", "b"), "features 1"),
        (layout.targets("a"), "targets 0"),
        (layout.index("clips") / "abc" / "rows.npy", "index"),
    ):
        assert find_record(path)["rule"] == rule
    with pytest.raises(StorageError, match="no record says how"):
        find_record(layout.features("segments", "c"))
    with pytest.raises(StorageError, match="no data folder"):
        find_record(layout.data.parent / "elsewhere.json")


def test_a_missing_output_is_an_error(layout: Layout) -> None:
    with pytest.raises(StorageError, match="does not exist, although its job has ended"):
        write_record(layout, outputs=[layout.aspects])


def test_the_code_of_a_checkout_has_its_commit_and_what_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "_ROOT", tmp_path)
    record.code.cache_clear()
    assert record.code()["commit"] is None
    record.code.cache_clear()
    (tmp_path / "Snakefile").write_text("one")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *command], check=True)
    (tmp_path / "Snakefile").write_text("two")
    (tmp_path / "notes.md").write_text("not code")
    found = record.code()
    record.code.cache_clear()
    assert len(found["commit"]) == 40
    assert found["changed"] == ["Snakefile"]


def test_records_lie_beside_each_other_whatever_the_output(layout: Layout, tmp_path: Path) -> None:
    output = tmp_path / "models" / "m.json"
    write_json(output, {})
    write_record(layout, outputs=[output], rule="untrained")
    (path,) = (layout.data / "provenance").rglob("*.json")
    assert read_json(path)["rule"] == "untrained"
