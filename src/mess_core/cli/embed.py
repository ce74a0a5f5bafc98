"""``mess embed``: the features of a passage of an audio file, for a search that starts from it."""

__all__ = ["add_parser", "embed_elsewhere", "is_of_passage", "read_embedded", "run"]

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

from mess_core.cli.printing import length
from mess_core.cli.search import add_passage
from mess_core.errors import SearchError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.floating]
    Embedded = tuple[Floats, dict[str, Floats]]


def add_parser(subparsers: Any) -> None:
    """Add ``embed`` to the command line."""
    parser = subparsers.add_parser(
        "embed",
        help="compute the features of an audio file or of a passage of it",
        description="Write the pooled features [windows, layers, dims] of an audio file, or of a "
        "passage of it, with its audio targets and the facts about the encoder, as .npz. `mess "
        "search --features` takes them, also where there is no encoder.",
    )
    parser.add_argument("audio", type=Path, metavar="FILE", help="any audio that libsndfile reads")
    add_passage(parser)
    parser.add_argument("--encoder", required=True, help="a known model's name, or a folder")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE.npz")
    parser.add_argument("--window", type=length, default=5.0, help="s, as in the index (5.0)")
    parser.add_argument("--overlap", type=float, default=0.5, help="as in the index (0.5)")
    parser.add_argument(
        "--precision", default="auto", help="as in the index; auto: what this machine does best"
    )
    parser.add_argument(
        "--models", type=Path, default=Path("data/models"), help="default: %(default)s"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write a passage's features."""
    import numpy as np

    from mess_core.extraction import FeatureExtractor, extract_passage
    from mess_core.files import atomic_path
    from mess_core.targets import measure_passage

    extractor = FeatureExtractor(
        args.encoder,
        window_s=args.window,
        overlap=args.overlap,
        models=args.models,
        precision=args.precision,
    )
    features = extract_passage(extractor, args.audio, args.start, args.end)
    measured = measure_passage(
        args.audio, args.start, args.end, window_s=args.window, overlap=args.overlap
    )
    facts = {
        "encoder": extractor.encoder.facts(),
        "window_s": args.window,
        "passage": args.start is not None or args.end is not None,
    }
    with atomic_path(args.output) as path, path.open("wb") as file:
        np.savez(file, features=features, facts=json.dumps(facts), **dict[str, Any](measured))
    name, precision = facts["encoder"]["name"], facts["encoder"]["precision"]
    print(f"{len(features)} windows by {name} in {precision}: {args.output}")
    return 0


def read_embedded(path: Path, index_facts: Mapping[str, Any]) -> "Embedded":
    """Read features [windows, layers, dims] of `mess embed`, for an index of the same encoder.

    Returns with them what is measured, as `search_features` takes it. Raises `SearchError` if it is
    no such file, or of another encoder, precision or window.
    """
    features, facts, measured = _read(path)
    own, theirs = facts["encoder"], index_facts.get("encoder", {})
    compared = [(key, own.get(key), theirs.get(key)) for key in ("fingerprint", "precision")]
    compared.append(("window_s", facts.get("window_s"), index_facts.get("window_s")))
    for key, mine, wanted in compared:
        if mine != wanted:
            raise SearchError(
                f"{path} was made by {own.get('name')} with {key} {mine}, the index by "
                f"{theirs.get('name')} with {wanted}: embed the audio again with the index's "
                "encoder, --precision and --window"
            )
    return features, measured


def is_of_passage(path: Path) -> bool:
    """Return whether `mess embed` wrote the features of a passage, rather than of a file."""
    return bool(_read(path)[1].get("passage"))


def _read(path: Path) -> "tuple[Floats, dict[str, Any], dict[str, Floats]]":
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as file:
            features, facts = file["features"], json.loads(str(file["facts"]))
            measured = {key: file[key] for key in file.files if "/" in key}
        facts["encoder"]["name"]
    except (OSError, ValueError, EOFError, LookupError, TypeError, BadZipFile) as error:
        raise SearchError(
            f"{path} holds no features as `mess embed` writes them ({type(error).__name__}); in "
            "Python, search_features takes any array"
        ) from None
    return features, facts, measured


def embed_elsewhere(
    audio: Path,
    start: float | None,
    end: float | None,
    facts: Mapping[str, Any],
    *,
    encoder: str | None = None,
    timeout_s: float | None = None,
) -> "Embedded":
    """Compute what `read_embedded` returns of a passage for an index, in another process.

    PyTorch and FAISS bring an OpenMP each, which do not get on in one process everywhere. The
    encoder is looked for by its name, where no other place is given. Raises `SearchError` if they
    cannot be computed, or not by the index's encoder, or not in time.
    """
    theirs = facts.get("encoder", {})
    with TemporaryDirectory() as folder:
        output = Path(folder) / "features.npz"
        options = {
            "--encoder": encoder or theirs.get("name"),
            "--output": output,
            "--window": facts.get("window_s"),
            "--overlap": facts.get("overlap"),
            "--precision": theirs.get("precision"),
            "--from": start,
            "--to": end,
        }
        command = [sys.executable, "-m", "mess_core.cli.main", "embed", str(audio)]
        for option, value in options.items():
            command += [option, str(value)] if value is not None else []
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s)
        except subprocess.TimeoutExpired:
            raise SearchError(f"{audio}: its features took more than {timeout_s:g} s") from None
        if done.returncode:
            raise SearchError(f"{audio} cannot be searched with: {done.stderr.strip()}")
        return read_embedded(output, facts)
