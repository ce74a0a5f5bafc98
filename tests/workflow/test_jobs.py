"""Jobs refuse what would mix results that do not belong together."""

from pathlib import Path

import pytest

from mess_core.errors import StorageError
from mess_core.files import write_json
from mess_core.layout import Layout
from mess_core.workflow.jobs import _withdraw_other, gather_features

pytestmark = pytest.mark.unit

FACTS = {"name": "m", "precision": "bfloat16"}


def test_a_manifest_of_other_inputs_is_withdrawn_before_its_files_are_replaced(
    tmp_path: Path,
) -> None:
    manifest = tmp_path / "manifest.json"
    assert _withdraw_other(manifest, "0", "these") == {}
    content = {"shards": {"0": "these"}, "encoder": FACTS}
    write_json(manifest, content)
    assert _withdraw_other(manifest, "0", "these") == content
    assert _withdraw_other(manifest, "0", "others") == {}
    assert not manifest.exists()


def test_what_comes_together_is_of_the_same_inputs_and_encoder(tmp_path: Path) -> None:
    layout = Layout(tmp_path, "x")

    def receipt(shard: str, inputs: str, **encoder: str) -> None:
        content = {"inputs": inputs, "encoder": FACTS | encoder, "recordings": {}, "failed": {}}
        write_json(layout.receipt("features", shard), content)

    def gather() -> None:
        gather_features(layout, source="encoder", shards={"0": "a", "1": "b"})

    receipt("0", "a")
    receipt("1", "older")
    with pytest.raises(StorageError, match=r"shards/1.json is of other recordings or settings"):
        gather()
    receipt("1", "b", precision="float32")
    with pytest.raises(StorageError, match="different encoders or in different precisions"):
        gather()
    receipt("1", "b")
    gather()
    assert layout.features_manifest.is_file()
