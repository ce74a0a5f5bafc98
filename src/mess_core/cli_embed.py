"""``mess embed``: the features of a passage of an audio file, for a search that starts from it."""

__all__ = ["add_parser", "embed_elsewhere", "run"]

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from mess_core.errors import SearchError
from mess_core.files import save_array
from mess_core.jobs import encoder_facts


def add_parser(subparsers: Any) -> None:
    """Add ``embed`` to the command line.

    Parameters
    ----------
    subparsers : argparse subparsers action
        From ``ArgumentParser.add_subparsers``.
    """
    parser = subparsers.add_parser(
        "embed",
        help="compute the features of an audio file or of a passage of it",
        description="Write the pooled features [windows, layers, dims] of an audio file, or of a "
        "passage of it, as .npy, and print which encoder made them. `mess search --features` takes "
        "them, also where there is no encoder.",
    )
    parser.add_argument("audio", type=Path, metavar="FILE", help="any audio that libsndfile reads")
    parser.add_argument("--from", dest="start", type=float, metavar="SECONDS")
    parser.add_argument("--to", dest="end", type=float, metavar="SECONDS")
    parser.add_argument("--encoder", required=True, help="a known model's name, or a folder")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE.npy")
    parser.add_argument("--window", type=float, default=5.0, metavar="SECONDS")
    parser.add_argument("--overlap", type=float, default=0.5)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--models", type=Path, default=Path("data/models"))
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write a passage's features.

    Parameters
    ----------
    args : argparse.Namespace
        What `add_parser` defines.

    Returns
    -------
    int
        0.

    Raises
    ------
    AudioError
        If the file or the passage cannot be used.
    EncoderError
        If the encoder cannot be had.
    """
    from mess_core.extraction import FeatureExtractor
    from mess_core.extraction.passage import extract_passage

    extractor = FeatureExtractor(
        args.encoder,
        window_s=args.window,
        overlap=args.overlap,
        models=args.models,
        precision=args.precision,
    )
    features = extract_passage(extractor, args.audio, args.start, args.end)
    save_array(args.output, features)
    print(json.dumps(encoder_facts(extractor.encoder)))
    return 0


def embed_elsewhere(
    audio: Path,
    start: float | None,
    end: float | None,
    facts: Mapping[str, Any],
    *,
    encoder: str | None = None,
) -> npt.NDArray[np.float32]:
    """Compute a passage's features for an index, in a process of their own.

    PyTorch and FAISS bring an OpenMP each, which do not get on in one process everywhere.

    Parameters
    ----------
    audio : Path
        The file.
    start, end : float or None
        The passage in seconds.
    facts : mapping
        Of the index.
    encoder : str, optional
        Where the index's encoder is; by default its name.

    Returns
    -------
    ndarray of float32 [shape=(windows, layers, dims)]

    Raises
    ------
    SearchError
        If they cannot be computed, or not by the index's encoder.
    """
    theirs = facts.get("encoder", {})
    with TemporaryDirectory() as folder:
        output = Path(folder) / "features.npy"
        options = {
            "--encoder": encoder or theirs.get("name"),
            "--output": output,
            "--window": facts.get("window_s"),
            "--overlap": facts.get("overlap"),
            "--precision": theirs.get("precision"),
            "--from": start,
            "--to": end,
        }
        command = [sys.executable, "-m", "mess_core.cli", "embed", str(audio)]
        for option, value in options.items():
            command += [option, str(value)] if value is not None else []
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SearchError(f"{audio} cannot be searched with: {done.stderr.strip()}")
        own = json.loads(done.stdout.splitlines()[-1])
        for key in ("fingerprint", "precision"):
            if own.get(key) != theirs.get(key):
                raise SearchError(
                    f"the encoder here, {own.get('name')}, has the {key} {own.get(key)}, that of "
                    f"the index, {theirs.get('name')}, {theirs.get(key)}: give its folder with "
                    "--encoder"
                )
        features: npt.NDArray[np.float32] = np.load(output, allow_pickle=False)
    return features
