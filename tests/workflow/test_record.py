"""Records say how a result was made, and cannot pass for another's."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mess_core.cache import cached, materialise
from mess_core.cli.main import main
from mess_core.errors import StorageError
from mess_core.files import file_sha256, write_json
from mess_core.layout import Layout
from mess_core.recordings import write_recordings
from mess_core.workflow import software
from mess_core.workflow.config import Settings
from mess_core.workflow.record import content_of, find, read_record, record_path, write_record
from mess_core.workflow.script import job
from tests.workflow.test_plan import RECORDINGS

pytestmark = pytest.mark.unit


CONFIG = {"dataset": "demo"}


@dataclass
class FakeSnakemake:
    """What Snakemake puts into a script."""

    output: list[str]
    input: list[str] = field(default_factory=list)
    rule: str = "probing"
    wildcards: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=lambda: CONFIG)
    threads: int = 2
    log: tuple[str] = ("job.log",)
    scriptdir: str = "/checkout/workflow/rules/../scripts"
    params: Any = field(default_factory=lambda: SimpleNamespace(cfg={"stage": 2}))


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def layout() -> Layout:
    return Layout(Path("data"), "demo")


def run_job(fake: FakeSnakemake, write: Callable[[], None]) -> None:
    with job(fake):
        write()


def probe(layout: Layout, text: str = "{}") -> Path:
    """Run a job that writes one result; return the result."""
    path = layout.probe("rubato")
    write_json(layout.target_manifest("rubato"), {"digest": "d"})
    run_job(
        FakeSnakemake(
            [str(path)],
            # Named twice, as inputs may be.
            [str(layout.target_manifest("rubato"))] * 2,
            wildcards={"target": "rubato"},
        ),
        lambda: put(path, text),
    )
    return path


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_job_leaves_a_record_of_what_it_was(layout: Layout) -> None:
    path = probe(layout)
    record = read_record(layout.data, path)
    assert record
    assert record["rule"] == "probing"
    assert record["wildcards"] == {"target": "rubato"}
    assert record["params"] == {"stage": 2}
    assert record["config"] == Settings.from_config(CONFIG).by_key
    assert record["threads"] == 2
    assert record["outputs"] == {"probing/demo/rubato.json": {"sha256": file_sha256(path)}}
    manifest = layout.target_manifest("rubato")
    assert record["inputs"] == {
        "proxy_targets/demo/manifests/rubato.json": {"sha256": file_sha256(manifest)}
    }
    assert record["started"] <= record["ended"]
    assert record["stages"]["probing"] > 0
    assert record["code"] == software.code()
    assert record["again"] == {"folder": str(Path.cwd()), "snakefile": "/checkout/Snakefile"}


def test_a_job_that_fails_leaves_the_old_record(layout: Layout) -> None:
    path = probe(layout, "[1]")
    before = record_path(layout.data, path).read_bytes()

    def fail() -> None:
        put(path, "half")
        raise StorageError("no space")

    with pytest.raises(SystemExit):
        run_job(FakeSnakemake([str(path)]), fail)
    # It does not lie: what it speaks of is known by its hash, and is gone.
    assert record_path(layout.data, path).read_bytes() == before
    assert main(["provenance", str(path)]) == 1
    path.unlink()
    assert main(["provenance", str(path)]) == 1


def test_an_output_that_was_not_written_fails_the_job(layout: Layout) -> None:
    with pytest.raises(SystemExit):
        run_job(FakeSnakemake([str(layout.probe("rubato"))]), lambda: None)
    assert not record_path(layout.data, layout.probe("rubato")).exists()


def test_folders_are_known_by_all_their_files(layout: Layout) -> None:
    folder = layout.decomposition("encoder", 3)

    def write() -> None:
        put(folder / "rows.npy", "rows")
        put(folder / "in" / "deep.txt", "deep")
        put(folder / ".snakemake_timestamp", "")

    run_job(FakeSnakemake([str(folder)]), write)
    found = find(folder)
    assert set(found.recorded["files"]) == {"rows.npy", "in/deep.txt"}
    assert content_of(folder) == found.recorded
    inside = find(folder / "rows.npy")
    assert inside.recorded == {"sha256": file_sha256(folder / "rows.npy")}
    assert find(folder / "in").recorded == content_of(folder / "in")
    (folder / ".snakemake_timestamp").touch()
    assert main(["provenance", str(folder)]) == 0
    put(folder / "in" / "deep.txt", "other")
    assert main(["provenance", str(folder)]) == 1
    assert main(["provenance", str(folder / "rows.npy")]) == 0
    # A file that was not there then is not in its record.
    put(folder / "new.txt", "")
    with pytest.raises(StorageError, match="no record says"):
        find(folder / "new.txt")


def test_what_is_large_is_quoted_from_its_own_record(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, path = layout.decomposition("encoder", 0), layout.probe("tempo")
    encoder = {"name": "m", "weights_sha256": "w"}

    def write() -> None:
        put(folder / "rows.npy", "rows")

    write_json(layout.features_manifest, {"encoder": encoder})
    run_job(FakeSnakemake([str(layout.features_manifest)]), lambda: None)
    run_job(FakeSnakemake([str(folder)], [str(layout.features_manifest)]), write)
    unknown = layout.decomposition("encoder", 1)
    unknown.mkdir()
    fake = FakeSnakemake([str(path)], [str(folder), str(unknown)])
    monkeypatch.setattr("mess_core.workflow.record.hashes_of_folder", None)
    run_job(fake, lambda: put(path, "{}"))
    record = read_record(layout.data, path)
    assert record
    hashes = [entry["sha256"] for entry in record["inputs"].values()]
    assert hashes == [find(folder).recorded["sha256"], None]
    # The encoder is that of what the inputs go back to.
    assert record["encoder"] == encoder


@pytest.fixture
def shard(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return a job that measures two recordings, as if by some version of the code."""
    layout.metadata.mkdir(parents=True)
    write_recordings(layout.table, RECORDINGS[:2])
    names = [recording.recording_id for recording in RECORDINGS[:2]]

    def measure() -> None:
        listed = {}
        for name in names:
            key = name.encode().hex().rjust(64, "0")
            stored = cached(layout.cache, "targets", key, ".npz", lambda p: put(p, f"of {p.name}"))
            materialise(stored, layout.targets(name))
            listed[name] = stored.stem
        write_json(layout.receipt("targets", "0"), {"stage": 2, "recordings": listed})

    def run(version: str) -> None:
        monkeypatch.setattr(software, "code", lambda: code_of(version))
        outputs = [*map(layout.targets, names), layout.receipt("targets", "0")]
        run_job(
            FakeSnakemake([str(p) for p in outputs], [str(layout.table)], rule="targets_0"), measure
        )

    return run


def code_of(version: str) -> dict[str, Any]:
    return {"version": version, "commit": None, "changed": None, "sha256": version * 32}


def test_a_shards_record_names_its_files_and_what_they_were_made_from(
    layout: Layout, shard: Callable[[str], None]
) -> None:
    one = layout.targets(RECORDINGS[0].recording_id)
    shard("11")
    first = find(one)
    assert file_sha256(one).startswith(first.recorded["sha256"])
    assert first.record["recordings"][RECORDINGS[0].recording_id]["audio"] == {
        "path": RECORDINGS[0].audio,
        "sha256": RECORDINGS[0].audio_sha256,
    }
    assert set(first.record["recordings"]) == {r.recording_id for r in RECORDINGS[:2]}


def test_the_page_says_then_and_now_and_how_to_make_it_again(
    layout: Layout, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = probe(layout)
    assert main(["provenance", str(path)]) == 0
    page = capsys.readouterr().out
    assert f"{path}: as recorded" in page
    assert "by rule probing (target rubato)" in page
    assert "everything as by default" in page
    assert "now as then" in page
    *_, last = [line for line in page.splitlines() if line.startswith("  snakemake")]
    assert last.endswith(f"--configfile again.json -- {path}")
    assert main(["provenance", str(path), "--config"]) == 0
    assert json.loads(capsys.readouterr().out) == Settings.from_config(CONFIG).by_key
    # Another configuration, code, stage and input than then.
    other = {**CONFIG, "overlap": 0.25}
    Path("other.yaml").write_text(json.dumps(other))
    monkeypatch.setattr("mess_core.stages.PROBING", 99)
    monkeypatch.setattr(software, "code", lambda: code_of("99"))
    run_job(
        FakeSnakemake([str(layout.target_manifest("rubato"))]),
        lambda: put(layout.target_manifest("rubato"), "{}"),
    )
    assert main(["provenance", str(path), "--configfile", "other.yaml", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["differences"]["config"] == {"overlap": [0.5, 0.25]}
    assert said["differences"]["stages"]["probing"][1] == 99
    assert said["differences"]["code"]["version"][1] == "99"
    assert list(said["inputs_changed"]) == ["proxy_targets/demo/manifests/rubato.json"]
    assert main(["provenance", str(path), "--configfile", "other.yaml"]) == 0
    page = capsys.readouterr().out
    assert "config overlap: 0.5 -> 0.25" in page
    assert "made again since, with other content" in page


def test_an_input_that_somebody_edited_is_no_input_as_it_was(
    layout: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    path, used = probe(layout), layout.target_manifest("rubato")
    used.write_text(used.read_text() + " ")
    assert main(["provenance", str(path)]) == 0
    page = capsys.readouterr().out
    assert f"{used.relative_to(layout.data)}: changed since, and not by a rule" in page
    assert "now as then" not in page


def test_other_spellings_of_a_path_are_the_same_file(layout: Layout) -> None:
    path = probe(layout)
    other = path.parent / ".." / path.parent.name / path.name
    assert find(other).name == find(path).name


def test_nobody_is_told_to_delete_what_no_rule_makes(
    layout: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    probe(layout)
    (layout.data / "published").mkdir()
    assert main(["provenance", str(layout.data / "published")]) == 1
    error = capsys.readouterr().err
    assert "no record says" in error
    assert "delete it" not in error
    assert main(["provenance", "nowhere"]) == 1
    assert "does not exist" in capsys.readouterr().err


def test_a_file_without_a_record_is_an_error_that_names_the_nearest(
    layout: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("foreign.txt").write_text("")
    assert main(["provenance", "foreign.txt"]) == 1
    assert "lies in no data folder that has records" in capsys.readouterr().err
    probe(layout)
    assert main(["provenance", str(layout.probe("rubatto"))]) == 1
    error = capsys.readouterr().err
    assert "did you mean 'probing/demo/rubato.json'" in error
    assert "let snakemake make it again" in error
    record_path(layout.data, layout.probe("rubato")).write_text('{"schema": 99}')
    assert main(["provenance", str(layout.probe("rubato"))]) == 1


def test_an_input_elsewhere_is_known_by_its_content(layout: Layout, tmp_path: Path) -> None:
    elsewhere, path = tmp_path / "elsewhere" / "notes.json", layout.probe("tempo")
    put(elsewhere, "{}")
    # Not its record: that would lie below the data folder.
    put(elsewhere.with_name("notes.json.json"), '{"schema": 1}')
    run_job(FakeSnakemake([str(path)], [str(elsewhere)]), lambda: put(path, "{}"))
    record = find(path).record
    assert record["inputs"] == {str(elsewhere): {"sha256": file_sha256(elsewhere)}}


def test_passwords_in_addresses_are_not_recorded(layout: Layout) -> None:
    path = layout.tracked
    tracking = {"uri": "https://me:secret@host/x", "experiment": "a@b"}
    run_job(
        FakeSnakemake([str(path)], config={**CONFIG, "tracking": tracking}), lambda: put(path, "{}")
    )
    text = record_path(layout.data, path).read_text()
    assert "secret" not in text
    assert "https://***@host/x" in text
    assert '"a@b"' in text


def test_another_folder_or_an_absolute_path_finds_the_same_record(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = probe(layout).absolute()
    record = find(path).record
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert find(path).record == record
    assert find(Path(os.path.relpath(path))).record == record


# The code.


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=x", "-c", "user.email=x@x", "-c", "commit.gpgsign=false")
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A checkout of another package of the same form."""
    root = tmp_path / "checkout"
    put(root / "src" / "mess_core" / "a.py", "A = 1\n")
    put(root / "Snakefile", "\n")
    put(root / "workflow" / "rules" / "a.smk", "\n")
    put(root / "docs" / "a.md", "\n")
    put(root / "pyproject.toml", '[project]\nversion = "7.8.9"\n')
    monkeypatch.setattr(software, "_PACKAGE", root / "src" / "mess_core")
    software.code.cache_clear()
    yield root
    software.code.cache_clear()


def code() -> dict[str, Any]:
    software.code.cache_clear()
    return software.code()


def test_the_code_is_known_without_git(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = code()
    assert (before["version"], before["commit"], before["changed"]) == ("7.8.9", None, None)
    put(checkout / "docs" / "a.md", "another")
    assert code() == before
    put(checkout / "workflow" / "rules" / "a.smk", "another")
    assert code()["sha256"] != before["sha256"]
    git(checkout, "init", "-q")
    # A repository without git, and one without a commit.
    monkeypatch.setenv("PATH", str(checkout))
    assert code()["commit"] is None


def test_changes_since_the_commit_are_named(checkout: Path) -> None:
    git(checkout, "init", "-q")
    git(checkout, "add", ".")
    git(checkout, "commit", "-qm", "x")
    head = git(checkout, "rev-parse", "HEAD")
    clean = code()
    assert (clean["commit"], clean["changed"]) == (head, [])
    put(checkout / "docs" / "a.md", "another")
    assert code() == clean
    put(checkout / "src" / "mess_core" / "a.py", "A = 2\n")
    put(checkout / "src" / "mess_core" / "b c.py", "B = 1\n")
    dirty = code()
    assert dirty["commit"] == head
    assert dirty["changed"] == ["src/mess_core/a.py", "src/mess_core/b c.py"]
    assert dirty["sha256"] != clean["sha256"]
    # Nothing is locked or written by looking.
    assert not (checkout / ".git" / "index.lock").exists()


def test_an_installed_package_is_known_by_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site-packages" / "mess_core"
    put(package / "a.py", "A = 1\n")
    git(tmp_path, "init", "-q")
    monkeypatch.setattr(software, "_PACKAGE", package)
    installed = code()
    assert (installed["commit"], len(installed["sha256"])) == (None, 64)
    software.code.cache_clear()


def test_records_name_the_libraries_that_were_used() -> None:
    import numpy as np

    assert software.libraries()["numpy"] == np.__version__
    assert software.machine()["python"].startswith("3.")


def test_a_table_made_by_the_command_line_has_a_record(layout: Layout) -> None:
    layout.metadata.mkdir(parents=True)
    write_recordings(layout.table, RECORDINGS[:1])
    write_record(
        layout,
        [layout.table],
        started=software.now(),
        again={"folder": str(Path.cwd()), "command": ["mess", "recordings", "--folder", "x y"]},
    )
    assert main(["provenance", str(layout.table)]) == 0
    assert main(["provenance", str(layout.table), "--config"]) == 1
