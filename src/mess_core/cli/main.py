"""The command line, ``mess COMMAND``.

Commands are ``recordings``, ``render``, ``model``, ``estimate``, ``question``, ``provenance``,
``embed``, ``search``, ``artifacts`` and ``tour``.
"""

__all__ = ["main"]

import argparse
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mess_core.cli import (
    artifacts as cli_artifacts,
    embed as cli_embed,
    model as cli_model,
    provenance as cli_provenance,
    question as cli_question,
    search as cli_search,
    tour as cli_tour,
)
from mess_core.errors import DatasetError, MessError
from mess_core.layout import Layout
from mess_core.progress import Progress
from mess_core.workflow import software
from mess_core.workflow.record import write_record


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0, or 1 after one of our own errors."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Names have accents; where the terminal has none, an escape is better than an error.
            stream.reconfigure(errors="backslashreplace")
    args = _parser().parse_args(argv)
    try:
        status: int = args.run(args)
    except MessError as error:
        print(f"mess {args.command}: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        print(
            f"mess {args.command}: needs {error.name}, which the plain install leaves out; "
            'from the checkout: pip install ".[extract,analysis]"',
            file=sys.stderr,
        )
        return 1
    except BrokenPipeError:
        # The reader (`| head`) has seen enough; Python must not try to flush into the closed pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        print(f"mess {args.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"mess {args.command}: interrupted", file=sys.stderr)
        return 130
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mess", description="Find music that sounds and is played alike."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_recordings(commands)
    _add_render(commands)
    cli_model.add_parser(commands)
    cli_model.add_estimate_parser(commands)
    cli_question.add_parser(commands)
    cli_provenance.add_parser(commands)
    cli_embed.add_parser(commands)
    cli_search.add_parser(commands)
    cli_artifacts.add_parser(commands)
    cli_tour.add_parser(commands)
    return parser


def _add_recordings(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "recordings",
        help="scan a dataset and write its recording table",
        description="Scan a dataset and write its recording table (data/metadata/NAME.tsv), which "
        "the workflow goes by. Only files that changed are read again. The demo's audio is made "
        "first, where it is missing.",
    )
    parser.add_argument("dataset", nargs="?", help="a registered dataset: demo, maestro, smd")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--folder", type=Path, help="a folder of audio of your own")
    source.add_argument(
        "--table", type=Path, help="a .tsv or .csv of your own with the column 'audio'"
    )
    parser.add_argument("--name", help="what to call your own dataset")
    parser.add_argument("--data", type=Path, default=Path("data"), help="default: %(default)s")
    parser.add_argument(
        "--window",
        type=float,
        default=5.0,
        metavar="SECONDS",
        help="length of a window; shorter recordings cannot be used (default: %(default)s)",
    )
    parser.set_defaults(run=_recordings)


def _recordings(args: argparse.Namespace) -> int:
    from mess_core.datasets import DatasetFactory, make_demo_corpus, scan_dataset

    own = args.folder or args.table
    if bool(args.dataset) == bool(own) or bool(own) != bool(args.name):
        raise DatasetError(
            "say either a registered dataset "
            f"({', '.join(DatasetFactory.get_available_datasets())}), "
            "or --folder PATH --name NAME, or --table FILE --name NAME"
        )
    if own:
        dataset = DatasetFactory.create_dataset(args.name, own)
    else:
        dataset = DatasetFactory.get_dataset(args.dataset, data=args.data)
    layout, started = Layout(args.data, dataset.name), software.now()
    if dataset.name == "demo":
        make_demo_corpus(
            layout.demo_audio, layout.demo_truth, progress=Progress("recordings performed")
        )
    report = scan_dataset(
        dataset, layout, min_duration_s=args.window, progress=Progress("recordings")
    )
    write_record(layout, [layout.table], started=started, again=_again(args))
    print(report.summary())
    print(f"table: {layout.table}")
    if report.problems:
        print(f"problems: {layout.problems}")
    print(f"next: snakemake --config dataset={dataset.name}")
    return 0


def _again(args: argparse.Namespace) -> dict[str, Any]:
    """Return the command that was given, for the record."""
    source = [args.dataset] if args.dataset else ["--table" if args.table else "--folder"]
    own = [] if args.dataset else [str(args.table or args.folder), "--name", args.name]
    options = ["--data", str(args.data), "--window", f"{args.window:g}"]
    return {
        "folder": str(Path.cwd()),
        "command": ["mess", "recordings", *source, *own, *options],
    }


def _add_render(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "render",
        help="render MIDI files to audio",
        description="Render MIDI performances to 44.1 kHz stereo WAV files with the bundled "
        "soundfont. A file that cannot be rendered is reported and the others are still made.",
    )
    parser.add_argument("midi", nargs="+", type=Path, help="MIDI files, or folders of them")
    parser.add_argument("--output", type=Path, required=True, help="folder for the WAV files")
    parser.add_argument("--soundfont", type=Path, help="an .sf2 file instead of the bundled one")
    parser.set_defaults(run=_render)


def _render(args: argparse.Namespace) -> int:
    from mess_core.datasets.base import MIDI_SUFFIXES, unique_ids
    from mess_core.datasets.render import render_midi_file

    files: list[tuple[Path, Path]] = []
    for path in args.midi:
        inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in MIDI_SUFFIXES)
        if path.is_dir() and not inside:
            raise DatasetError(f"{path} holds no MIDI files ({', '.join(MIDI_SUFFIXES)})")
        names = [p.relative_to(path) for p in inside] if path.is_dir() else [Path(path.name)]
        files += zip(inside or [path], map(Path, unique_ids(names)), strict=True)
    progress, failures = Progress("files"), []
    for done, (midi, name) in enumerate(files, start=1):
        try:
            render_midi_file(midi, args.output / f"{name}.wav", soundfont=args.soundfont)
        except MessError as error:
            failures.append(str(error))
        progress(done, len(files), midi.name)
    print(f"{len(files) - len(failures)} of {len(files)} files rendered to {args.output}")
    for failure in failures:
        print(f"  {failure}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
