"""``mess render``: MIDI files to audio."""

__all__ = ["add_parser", "run"]

import argparse
import sys
from pathlib import Path
from typing import Any

from mess_core.errors import DatasetError, MessError
from mess_core.progress import Progress


def add_parser(subparsers: Any) -> None:
    """Add ``render`` to the command line."""
    parser = subparsers.add_parser(
        "render",
        help="render MIDI files to audio",
        description="Render MIDI performances to 44.1 kHz stereo WAV files with the bundled "
        "soundfont, in the same sub-folders. A file that cannot be rendered is reported and the "
        "others are still made.",
    )
    parser.add_argument("midi", nargs="+", type=Path, help="MIDI files, or folders of them")
    parser.add_argument("--output", type=Path, required=True, help="folder for the WAV files")
    parser.add_argument("--soundfont", type=Path, help="an .sf2 file instead of the bundled one")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Render files; return 1 if some of them could not be rendered."""
    from mess_core.datasets.base import MIDI_SUFFIXES
    from mess_core.datasets.render import render_midi_file

    files: dict[Path, Path] = {}
    for path in args.midi:
        inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in MIDI_SUFFIXES)
        if path.is_dir() and not inside:
            raise DatasetError(f"{path} holds no MIDI files ({', '.join(MIDI_SUFFIXES)})")
        for midi in inside or [path]:
            name = midi.relative_to(path if inside else path.parent)
            wav = args.output / name.with_suffix(".wav")
            if wav in files:
                raise DatasetError(f"{files[wav]} and {midi} would both become {wav}; rename one")
            files[wav] = midi
    progress, failures = Progress("files"), []
    for done, (wav, midi) in enumerate(files.items(), start=1):
        try:
            render_midi_file(midi, wav, soundfont=args.soundfont)
        except MessError as error:
            failures.append(str(error))
        progress(done, len(files), midi.name)
    print(f"{len(files) - len(failures)} of {len(files)} files rendered to {args.output}")
    for failure in failures:
        print(f"  {failure}", file=sys.stderr)
    return 1 if failures else 0
