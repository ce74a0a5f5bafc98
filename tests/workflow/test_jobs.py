"""Jobs refuse what would mix results that do not belong together."""

from pathlib import Path

import pytest

from mess_core.errors import EncoderError
from mess_core.files import write_json
from mess_core.workflow.jobs import _refuse_mixture
from mess_core.workflow.plan import Plan
from tests.workflow.test_plan import RECORDINGS, SETTINGS

pytestmark = pytest.mark.unit


def test_features_are_not_repaired_in_another_precision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plan = Plan(SETTINGS, tuple(RECORDINGS))
    manifest = SETTINGS.layout.features_manifest
    facts = {"name": "m", "precision": "bfloat16"}
    _refuse_mixture(plan, facts)
    content = {"digest": plan.features_digest, "encoder": facts}
    write_json(manifest, content)
    _refuse_mixture(plan, facts)
    other = facts | {"precision": "float32"}
    with pytest.raises(EncoderError, match=r"precision 'bfloat16' there, 'float32' here"):
        _refuse_mixture(plan, other)
    # Another plan's manifest is about to be replaced.
    write_json(manifest, content | {"digest": "another"})
    _refuse_mixture(plan, other)
