"""``mess artifacts`` on a folder and on S3: what it prints, changes and refuses."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mess_core.cli import main as cli
from mess_core.index.artifact import CONTENT, verify_artifact
from mess_core.publishing.publish import published_version

Save = Callable[[int], list[Path]]


@pytest.fixture(
    params=[
        pytest.param("folder", marks=pytest.mark.unit),
        pytest.param("s3", marks=pytest.mark.integration),
    ]
)
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "folder":
        return str(tmp_path / "published")
    return f"s3://{request.getfixturevalue('s3')[1]}/x"


@pytest.fixture
def mess(location: str, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Give a function that runs a command at the location and returns what it printed."""

    def run(command: str, *arguments: object, status: int = 0) -> str:
        argv = ["artifacts", command, "--artifacts", location, *map(str, arguments)]
        assert cli.main(argv) == status
        printed = capsys.readouterr()
        return printed.err if status else printed.out

    return run


def _latest(location: str) -> str:
    return published_version(location, "planted", "recordings")


def test_a_version_is_published_listed_verified_and_fetched(
    mess: Callable[..., str], location: str, artifact: Path, tmp_path: Path
) -> None:
    short = artifact.name[:12]
    assert f"{short} would become the latest" in mess("publish", artifact, "--dry-run")
    assert "nothing is published" in mess("list", status=1)
    assert f"{short} is now the latest at {location}/planted" in mess("publish", artifact)
    assert "is the latest already" in mess("publish", artifact)
    first, row = mess("list").splitlines()
    assert first == f"planted/recordings at {location}"
    assert row.split()[0] == short
    assert row.endswith(" MB  latest")
    assert f"{short} is complete and undamaged" in mess("verify")
    cache = tmp_path / "cache"
    assert "would fetch 0." in mess("fetch", "--cache", cache, "--dry-run")
    assert not cache.exists()
    assert mess("fetch", "--cache", cache).strip().endswith(str(cache / artifact.name))
    verify_artifact(cache / artifact.name)
    assert "is there" in mess("fetch", "--cache", cache, "--dry-run")


def test_versions_are_rolled_back_and_pruned(
    mess: Callable[..., str], location: str, versions_of: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = versions_of(3)
    for artifact in saved:
        mess("publish", artifact)
    old = saved[0].name
    assert f"{old[:12]} would become the latest" in mess("rollback", old[:8], "--dry-run")
    assert _latest(location) == saved[2].name
    assert f"{old[:12]} is now the latest" in mess("rollback", old[:8])
    assert _latest(location) == old
    assert "would remove 0 of 3 versions" in mess("prune", "--keep", 1, "--dry-run")
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 2 * 86400)
    planned = mess("prune", "--keep", 1, "--dry-run")
    assert "would remove" in planned
    assert len(mess("list").splitlines()) == 4
    assert mess("prune", "--keep", 1) == planned.replace("would remove", "removed")
    assert _latest(location) == old
    assert 2 <= len(mess("list").splitlines()) <= 3


def test_mistakes_are_told_in_one_line(
    mess: Callable[..., str], location: str, versions_of: Save
) -> None:
    first, second = versions_of(2)
    mess("publish", first, second)
    assert "names no version; choose of: " in mess("rollback", "xyz", status=1)
    assert "names several versions" in mess("rollback", "", status=1)
    assert "expected at least 1" in mess("prune", "--keep", 0, status=1)
    assert "is not a folder" in mess("publish", "nowhere", status=1)
    assert mess("list", "--dataset", "other") == ""
    assert _latest(location) == second.name


@pytest.mark.unit
def test_a_damaged_version_does_not_pass(tmp_path: Path, artifact: Path) -> None:
    location = tmp_path / "published"
    assert cli.main(["artifacts", "publish", str(artifact), "--artifacts", str(location)]) == 0
    (location / "planted" / "recordings" / artifact.name / CONTENT[0]).write_bytes(b"x")
    assert cli.main(["artifacts", "verify", "--artifacts", str(location)]) == 1


@pytest.mark.unit
def test_the_cache_is_the_users(
    tmp_path: Path, artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = str(tmp_path / "published")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    cli.main(["artifacts", "publish", str(artifact), "--artifacts", location])
    assert cli.main(["artifacts", "fetch", "--artifacts", location]) == 0
    assert verify_artifact(tmp_path / "home/mess/artifacts" / artifact.name)
