"""Every exported name exists, and importing what a service needs imports nothing heavy."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

PACKAGES = [
    "mess_core",
    *("mess_core.alignment", "mess_core.datasets", "mess_core.evaluation", "mess_core.extraction"),
    "mess_core.index",
    *("mess_core.probing", "mess_core.publishing", "mess_core.report", "mess_core.search"),
    "mess_core.targets",
]
HEAVY = "torch torchaudio transformers librosa sklearn pandas scipy soundfile snakemake matplotlib"


@pytest.mark.parametrize("package", PACKAGES)
def test_every_exported_name_exists_and_is_listed(package: str) -> None:
    module = import_module(package)
    assert set(module.__all__) <= set(dir(module))
    for name in module.__all__:
        assert callable(getattr(module, name)) or name.isupper(), name
    with pytest.raises(AttributeError, match="nothing"):
        _ = module.nothing


@pytest.mark.parametrize(
    ("statement", "heavy"),
    [
        ("import mess_core", f"{HEAVY} numpy faiss boto3"),
        (f"import {', '.join(PACKAGES)}", f"{HEAVY} numpy faiss boto3"),
        ("from mess_core import find_similar, load_latest_from_s3, search_by_clip", HEAVY),
        (
            "import mess_core.workflow.plan, mess_core.workflow.config, mess_core.recordings",
            f"{HEAVY} faiss",
        ),
        ("import mess_core.cli.search", f"{HEAVY} numpy faiss boto3"),
        ("import mess_core.cli.main", f"{HEAVY} faiss boto3"),
        ("import mess_core.probing.aspects", f"{HEAVY} threadpoolctl"),
        ("import mess_core.targets.registry", f"{HEAVY} numpy"),
        (
            "from mess_core.datasets.demo import demo_recordings; demo_recordings()",
            f"{HEAVY} midirenderer mido pretty_midi",
        ),
        # FAISS is there where examples are asked, so torch may not be.
        ("import mess_core.report.page, mess_core.index.artifact", HEAVY),
    ],
)
def test_imports_are_light(statement: str, heavy: str) -> None:
    check = f"{statement}\nimport sys\nprint(*(set({heavy.split()}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_what_is_public_is_typed_for_its_users(tmp_path: Path) -> None:
    script = tmp_path / "user.py"
    script.write_text(
        "from pathlib import Path\n"
        "from mess_core import Query, find_similar, search_features\n"
        "from mess_core.search import load_features\n"
        'index = load_features(Path("features"))\n'
        'query = Query("r1", like={"tempo": 1.0}, k=3)\n'
        'hits = find_similar(index, "r1")\n'
        "reveal_type(query)\n"
        "reveal_type(index)\n"
        "reveal_type(hits[0].score)\n"
        "reveal_type(search_features)\n"
    )
    command = [sys.executable, "-m", "mypy", "--strict", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    revealed = [line.split(": note: ")[1] for line in done.stdout.splitlines() if "note:" in line]
    assert revealed[:3] == [
        'Revealed type is "mess_core.search.query.Query"',
        'Revealed type is "mess_core.index.index.Index"',
        'Revealed type is "float"',
    ]
    assert "Any" not in revealed[3].split("->")[1]
