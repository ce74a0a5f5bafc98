"""``mess recordings``: write a dataset's recording table, which the workflow goes by."""

__all__ = ["add_parser", "run"]

import argparse
from pathlib import Path
from typing import Any

from mess_core.cli.printing import length
from mess_core.errors import DatasetError
from mess_core.layout import Layout
from mess_core.progress import Progress
from mess_core.recordings import check_enough
from mess_core.workflow.record import now, write_record


def add_parser(subparsers: Any) -> None:
    """Add ``recordings`` to the command line."""
    parser = subparsers.add_parser(
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
        type=length,
        default=5.0,
        metavar="SECONDS",
        help="length of a window; shorter recordings cannot be used (default: %(default)s)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Scan a dataset, write its table and say what can be done with it."""
    from mess_core.datasets import DatasetFactory, make_demo_corpus, scan_dataset

    own = args.folder or args.table
    if args.dataset and not own and Path(args.dataset).exists():
        option = "--folder" if Path(args.dataset).is_dir() else "--table"
        if args.dataset not in DatasetFactory.get_available_datasets():
            raise DatasetError(
                f"for recordings of your own say `mess recordings {option} {args.dataset} "
                f"--name {args.name or 'NAME'}`"
            )
    if bool(args.dataset) == bool(own) or bool(own) != bool(args.name):
        raise DatasetError(
            "say either a registered dataset "
            f"({', '.join(DatasetFactory.get_available_datasets())}), "
            "or --folder PATH --name NAME, or --table FILE --name NAME"
        )
    if own:
        if args.data != Path("data"):  # The table is of a run in another folder.
            own = own.absolute()
        dataset = DatasetFactory.create_dataset(args.name, own)
    else:
        dataset = DatasetFactory.get_dataset(args.dataset, data=args.data)
    layout, started = Layout(args.data, dataset.name), now()
    if dataset.name == "demo":
        make_demo_corpus(
            layout.demo_audio, layout.demo_truth, progress=Progress("recordings performed")
        )
    report = scan_dataset(
        dataset, layout, min_duration_s=args.window, progress=Progress("recordings")
    )
    write_record(
        layout, outputs=[layout.table], rule="mess recordings", params=_said(args), started=started
    )
    print(report.summary())
    print(f"table: {layout.table}")
    if report.problems:
        print(f"problems: {layout.problems}")
    if warning := check_enough(report.recordings):
        print(f"note: {warning}")
    print(f"next: snakemake --config dataset={dataset.name}")
    return 0


def _said(args: argparse.Namespace) -> dict[str, str]:
    """Return the arguments, for the record."""
    return {name: str(value) for name, value in vars(args).items() if name != "run" and value}
