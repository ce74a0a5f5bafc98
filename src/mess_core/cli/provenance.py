"""``mess provenance``: how a result was made, whether it is still that, how to make it again."""

__all__ = ["add_parser", "run"]

import argparse
import json
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mess_core.errors import ArtifactError, ConfigError, StorageError
from mess_core.workflow import software
from mess_core.workflow.config import Settings
from mess_core.workflow.record import (
    Found,
    content_of,
    find,
    hash_of_input,
    hashes_of_folder,
    is_content,
    read_record,
    stage_numbers,
)

_AS_RECORDED, _OTHER, _GONE = "as recorded", "other content", "gone"
_MADE_AGAIN = "made again since, with other content"
_EDITED = "changed since, and not by a rule"
_SHOWN_DIGITS = 12
_SHOWN_NAMES = 6


def add_parser(subparsers: Any) -> None:
    """Add ``provenance`` to the command line.

    Parameters
    ----------
    subparsers : argparse subparsers action
        From ``ArgumentParser.add_subparsers``.
    """
    parser = subparsers.add_parser(
        "provenance",
        help="show how a result was made, and how to make it again",
        description="Show how a result was made: when, by which rule, configuration, stages, "
        "encoder, data and code; whether it still is what was recorded; and how to make it again. "
        "FILE may be any result of the workflow, a file in one that is a folder, or an artifact "
        "anywhere. The status is 1 when FILE is gone or not what was recorded.",
    )
    parser.add_argument("file", type=Path, metavar="FILE")
    parser.add_argument("--json", action="store_true", help="everything that is known")
    parser.add_argument(
        "--config",
        action="store_true",
        help="only the recorded configuration, as a file for `snakemake --configfile`",
    )
    parser.add_argument(
        "--configfile",
        type=Path,
        metavar="FILE",
        help="compare the recorded configuration with this one (default: config/config.yaml if "
        "there is one)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the provenance of a file.

    Parameters
    ----------
    args : argparse.Namespace
        What `add_parser` defines.

    Returns
    -------
    int
        0; 1 if the file is gone or is not what was recorded.

    Raises
    ------
    StorageError
        If nothing is known of the file.
    """
    if folder := _artifact_of(args.file):
        return _run_artifact(args, folder)
    found = find(args.file)
    if args.config:
        print(json.dumps(_config(found), indent=2))
        return 0
    said = _described(args.file, found, args.configfile)
    print(json.dumps(said, indent=2) if args.json else "\n".join(_page(said)))
    return 0 if said["status"] == _AS_RECORDED else 1


def _config(found: Found) -> dict[str, Any]:
    config: dict[str, Any] | None = found.record.get("config")
    if not config:
        raise StorageError(f"{found.name} was not made by the workflow: there is no configuration")
    return config


def _described(path: Path, found: Found, configfile: Path | None) -> dict[str, Any]:
    """Return all that is known of a result, in JSON's terms."""
    record = found.record
    return {
        "file": str(path),
        "status": _status(path, found.recorded["sha256"]),
        "recorded": found.recorded,
        "record": record,
        "config_not_default": _not_default(record.get("config")),
        "differences": _differences(record, configfile),
        "inputs_changed": _changed_inputs(found),
        "chain": _chain(found),
        "again": _again(found),
    }


def _status(path: Path, recorded: str) -> str:
    if not path.exists():
        return _GONE
    return _AS_RECORDED if is_content(content_of(path)["sha256"], recorded) else _OTHER


# Configuration.


def _flat(config: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        inside = isinstance(value, Mapping)
        flat |= _flat(value, f"{where}{key}.") if inside else {f"{where}{key}": value}
    return flat


def _not_default(config: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the keys whose values are not the defaults; None where nothing was recorded."""
    if config is None:
        return None
    default = Settings().by_key
    return {key: value for key, value in _flat(config).items() if value != default.get(key)}


def _present_config(configfile: Path | None) -> dict[str, Any] | None:
    path = configfile or Path("config", "config.yaml")
    if configfile is None and not path.is_file():
        return None
    import yaml

    try:
        config = yaml.safe_load(path.read_text()) or {}
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    return Settings.from_config(config).by_key


# Then and now.


def _differences(record: Mapping[str, Any], configfile: Path | None) -> dict[str, Any]:
    """Return what is otherwise now than when it was made: code, stages, configuration."""
    now, then = software.code(), record["code"]
    keys = [key for key in ("version", "commit", "sha256") if now[key] != then.get(key)]
    numbers, recorded = stage_numbers(), record["stages"]
    return {
        # Another commit with the same sources is the same code.
        "code": {key: [then.get(key), now[key]] for key in keys} if "sha256" in keys else {},
        "stages": _changes(recorded, numbers),
        "config": _config_changes(record.get("config"), configfile),
    }


def _changes(then: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    names = sorted(then.keys() | now.keys())
    return {n: [then.get(n), now.get(n)] for n in names if then.get(n) != now.get(n)}


def _config_changes(
    config: Mapping[str, Any] | None, configfile: Path | None
) -> dict[str, Any] | None:
    """Return what differs; None where there is nothing to compare with."""
    present = _present_config(configfile) if config else None
    if config is None or present is None:
        return None
    then = _flat(config)
    if configfile is None and present["dataset"] != then["dataset"]:
        return None
    return _changes(then, present)


def _changed_inputs(found: Found) -> dict[str, str]:
    """Return the inputs, and the recording table, that are not now what was used."""
    table = found.record.get("table")
    used = {**found.record["inputs"], **({table["path"]: table} if table else {})}
    changed = {}
    for name, entry in used.items():
        path = found.data / name
        record = read_record(found.data, path)
        now = hash_of_input(path, name, record)
        if not path.exists():
            changed[name] = _GONE
        elif now and entry["sha256"] and now != entry["sha256"]:
            made = record and record["outputs"].get(name, {}).get("sha256") == now
            changed[name] = _MADE_AGAIN if made else _EDITED
    return changed


def _chain(found: Found) -> list[dict[str, Any]]:
    """Return the jobs that a result goes back to, the nearest first: one entry per rule."""
    rules: dict[str, dict[str, Any]] = {}
    seen, ahead = {found.name}, list(found.record["inputs"])
    while ahead:
        name = ahead.pop(0)
        if name in seen:
            continue
        seen.add(name)
        record = read_record(found.data, found.data / name)
        rule = _rule(record) if record else "(no record)"
        entry = rules.setdefault(rule, {"rule": rule, "results": [], "ended": [], "code": []})
        entry["results"].append(name)
        if record:
            entry["ended"].append(record["ended"])
            if (code := _code(record["code"])) not in entry["code"]:
                entry["code"].append(code)
            ahead += record["inputs"]
    return [
        {**entry, "ended": sorted({min(entry["ended"]), max(entry["ended"])})}
        if entry["ended"]
        else entry
        for entry in rules.values()
    ]


def _rule(record: Mapping[str, Any]) -> str:
    """Return a rule's name without its shard."""
    name = str(record.get("rule") or "mess recordings")
    return name.rstrip("0123456789").removesuffix("_")


def _again(found: Found) -> list[str]:
    """Return the commands that make it again, in the recorded way."""
    record = found.record
    if not record.get("config"):
        return [shlex.join(record["again"]["command"])]
    again, code = record["again"], record["code"]
    target = Path(record["config"]["data"], _output_of(found))
    commands = [f"cd {shlex.quote(again['folder'])}"]
    root = Path(again["snakefile"]).parent
    if code["commit"] and code["commit"] != software.code()["commit"]:
        commands.append(shlex.join(["git", "-C", str(root), "checkout", code["commit"]]))
    commands += [
        f"{shlex.join(['mess', 'provenance', str(target), '--config'])} > again.json",
        shlex.join(["rm", "-r", str(target)]),
    ]
    here = [] if again["folder"] == str(root) else ["--snakefile", again["snakefile"]]
    snakemake = ["snakemake", *here, "--cores", str(record["threads"])]
    return [*commands, shlex.join([*snakemake, "--configfile", "again.json", "--", str(target)])]


def _output_of(found: Found) -> str:
    """Return the output that a file is or lies in."""
    outputs = found.record["outputs"]
    inside = (name for name in outputs if found.name.startswith(f"{name}/"))
    return found.name if found.name in outputs else next(inside, found.name)


# The page.


def _page(said: Mapping[str, Any]) -> Iterator[str]:
    record = said["record"]
    yield f"{said['file']}: {said['status']}"
    if said["status"] == _OTHER:
        yield "  this file is not what the record speaks of: it was changed or replaced since"
    yield from _made(record, said["recorded"])
    yield from _configuration(record.get("config"), said["config_not_default"])
    yield from _stages_and_encoder(record)
    yield from _data(record, said["recorded"], said["file"])
    yield from _software(record)
    yield from _then_and_now(said)
    if said["chain"]:
        yield "\nMade from"
        for entry in said["chain"]:
            yield f"  {_link(entry)}"
    yield "\nTo make it again"
    yield from (f"  {command}" for command in said["again"])
    if said["record"]["code"]["changed"]:
        yield "  (the code had changes that no commit has: this makes it again only where they are)"


def _made(record: Mapping[str, Any], recorded: Mapping[str, Any]) -> Iterator[str]:
    wildcards = ", ".join(f"{k} {v}" for k, v in record.get("wildcards", {}).items())
    rule = f"rule {record['rule']}" if record.get("rule") else "mess recordings"
    yield f"  made {record['ended']} by {rule}{f' ({wildcards})' if wildcards else ''}"
    yield f"  sha256 {recorded['sha256']}"
    if "fingerprint" in recorded:
        by = record["computed_by"].get(recorded.get("by"))
        when = f"{recorded['computed']} by {_code(by)}" if by else "at a time that is not known"
        yield f"  a copy of what was computed {when}"


def _configuration(
    config: Mapping[str, Any] | None, not_default: Mapping[str, Any] | None
) -> Iterator[str]:
    if config is None:
        return
    different = not_default or {}
    yield "\nConfiguration"
    yield from (f"  {key}: {json.dumps(value)}" for key, value in different.items())
    rest = {key: value for key, value in _flat(config).items() if key not in different}
    if not_default is not None:
        yield "  as by default:" if different else "  everything as by default:"
    yield from (f"    {key}: {json.dumps(value)}" for key, value in rest.items())


def _stages_and_encoder(record: Mapping[str, Any]) -> Iterator[str]:
    yield "\nStages"
    yield "  " + ", ".join(f"{name} {number}" for name, number in record["stages"].items())
    if encoder := record.get("encoder"):
        yield "\nEncoder"
        yield from (
            f"  {key}: {value}" for key, value in encoder.items() if value not in ("", None)
        )
        if record.get("engine"):
            yield f"  run by: {record['engine']}"


def _data(record: Mapping[str, Any], recorded: Mapping[str, Any], file: str) -> Iterator[str]:
    yield "\nData"
    if table := record.get("table"):
        yield f"  {_digits(table['sha256'])}  {table['path']} (recording table)"
    stem = Path(file).name.rsplit(".", 1)[0]
    sources = record.get("recordings", {})
    # Of a recording's own file its audio and MIDI; of a shard's receipt those of all.
    own = sources.get(stem) or sources.get(stem.removesuffix("_targets"))
    chosen = {stem: own} if own and "fingerprint" in recorded else sources
    for parts in chosen.values():
        for part, entry in parts.items():
            yield f"  {_digits(entry['sha256'])}  {entry['path']} ({part})"
    inputs = [(n, e) for n, e in record["inputs"].items() if not table or n != table["path"]]
    for name, entry in inputs[:_SHOWN_NAMES]:
        yield f"  {_digits(entry['sha256'])}  {name}"
    if len(inputs) > _SHOWN_NAMES:
        yield f"  and {len(inputs) - _SHOWN_NAMES} more results of earlier jobs (--json)"


def _digits(sha256: str | None) -> str:
    return (sha256 or "not known")[:_SHOWN_DIGITS].ljust(_SHOWN_DIGITS)


def _software(record: Mapping[str, Any]) -> Iterator[str]:
    yield "\nCode"
    yield f"  {_code(record['code'])}"
    yield f"  sources {_digits(record['code']['sha256'])}"
    if changed := record["code"]["changed"]:
        more = f" and {len(changed) - _SHOWN_NAMES} more" if len(changed) > _SHOWN_NAMES else ""
        yield f"  changed since the commit: {', '.join(changed[:_SHOWN_NAMES])}{more}"
    libraries = {"Python": record["machine"]["python"], **record["libraries"]}
    yield "  " + ", ".join(f"{name} {number}" for name, number in libraries.items())
    machine = record["machine"]
    yield f"  {machine['platform']}, {machine['processor']}, {record.get('threads', 1)} threads"


def _code(code: Mapping[str, Any]) -> str:
    if not code["commit"]:
        return f"mess-core {code['version']} (no git commit)"
    changed = ", changed" if code["changed"] else ""
    return f"mess-core {code['version']} (commit {_digits(code['commit'])}{changed})"


def _then_and_now(said: Mapping[str, Any]) -> Iterator[str]:
    differences = said["differences"]
    lines = []
    if code := differences["code"]:
        told = code.get("commit") or code.get("version") or code["sha256"]
        lines.append(f"  code: {_told(told)}")
    for what in ("stages", "config"):
        for name, values in (differences[what] or {}).items():
            lines.append(f"  {what} {name}: {_told(values)}")
    lines += [f"  {name}: {what}" for name, what in said["inputs_changed"].items()]
    same = "Code, stages and inputs" if differences["config"] is None else "Everything"
    yield "\nOtherwise now (then -> now)" if lines else f"\n{same}: now as then"
    yield from lines
    if differences["config"] is None and said["record"].get("config"):
        yield "  (no configuration to compare with: see --configfile)"


def _told(values: list[Any]) -> str:
    then, now = (_digits(v) if isinstance(v, str) else json.dumps(v) for v in values)
    return f"{then} -> {now}"


def _link(entry: Mapping[str, Any]) -> str:
    results = entry["results"]
    first = results[0] if len(results) == 1 else f"{len(results)} results"
    when = " to ".join(entry["ended"])
    return (
        f"{entry['rule']}: {first}{when and f', {when}'}{''.join(f', {c}' for c in entry['code'])}"
    )


# Artifacts, which tell themselves.


def _artifact_of(path: Path) -> Path | None:
    """Return the artifact that a path is or lies in."""
    for folder in (path, path.parent):
        if (folder / "manifest.json").is_file() and (folder / "checksums.json").is_file():
            return folder
    return None


def _run_artifact(args: argparse.Namespace, folder: Path) -> int:
    from mess_core.index.artifact import parse_manifest

    manifest, checksums = parse_manifest(
        (folder / "manifest.json").read_bytes(),
        (folder / "checksums.json").read_bytes(),
        str(folder),
    )
    build, facts = manifest["build"], manifest["facts"]
    if args.config:
        raise ArtifactError(
            f"{folder}: an artifact does not say the whole configuration; see `build` in --json"
        )
    damaged = _damaged(folder, checksums)
    said = {
        "file": str(args.file),
        "status": _OTHER if damaged else _AS_RECORDED,
        "damaged": damaged,
        "artifact_version_id": manifest["artifact_version_id"],
        "kind": manifest["kind"],
        "facts": facts,
        "build": build,
        "differences": {"stages": _stage_changes(facts.get("stages", {}))},
    }
    print(json.dumps(said, indent=2) if args.json else "\n".join(_artifact_page(said)))
    return 1 if damaged else 0


def _damaged(folder: Path, checksums: Mapping[str, Any]) -> list[str]:
    hashes = hashes_of_folder(folder)
    return [name for name, listed in checksums.items() if hashes.get(name) != listed["sha256"]]


def _stage_changes(then: Mapping[str, Any]) -> dict[str, Any]:
    numbers = stage_numbers()
    return _changes(then, {name: numbers.get(name) for name in then})


def _artifact_page(said: Mapping[str, Any]) -> Iterator[str]:
    facts, build = said["facts"], said["build"]
    yield f"{said['file']}: {said['status']}"
    yield from (f"  damaged: {name}" for name in said["damaged"])
    yield f"  index of {said['kind']}, version {said['artifact_version_id']}"
    code = build.get("code")
    # Older artifacts say the version of the package only.
    maker = _code(code) if code else f"mess-core {build['libraries'].get('mess-core', '?')}"
    yield f"  made {build['created']} by {maker}"
    for title, part in (("Facts", facts), ("Build", build)):
        yield f"\n{title}"
        yield from (f"  {key}: {json.dumps(value)}" for key, value in _flat(part).items())
    if changes := said["differences"]["stages"]:
        yield "\nOtherwise now (then -> now)"
        yield from (f"  stages {name}: {_told(values)}" for name, values in changes.items())
    folder = f"data/indices/{facts.get('dataset')}/{said['kind']}"
    yield "\nTo make it again, run the workflow with this configuration on data of these hashes."
    yield f"Where it ran, `mess provenance {folder}` has the commands."
