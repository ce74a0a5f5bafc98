"""``mess model``: get encoders, list them, prove one; ``mess estimate``: how long one will take."""

__all__ = ["add_estimate_parser", "add_parser", "estimate", "fetch", "show_models", "verify"]

import argparse
import shlex
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mess_core.errors import EncoderError, nearest
from mess_core.extraction.specs import MODELS, MertSpec, read_model_json
from mess_core.layout import Layout

if TYPE_CHECKING:
    from mess_core.extraction.checkpoint import Checkpoint
    from mess_core.extraction.encoder import MertEncoder
    from mess_core.extraction.golden import Agreement, Floats

_MODELS = Path("data/models")
_PRECISIONS = ("auto", "float32", "bfloat16", "float16")
_DEVICE_HELP = "auto, cpu, cuda, cuda:1 or mps (default: %(default)s)"


def add_parser(subparsers: Any) -> None:
    """Add ``model`` to the command line.

    Parameters
    ----------
    subparsers : argparse subparsers action
        From ``ArgumentParser.add_subparsers``.
    """
    parser = subparsers.add_parser(
        "model",
        help="fetch, list and verify encoders",
        description="Fetch, list and verify encoders.",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    checking = actions.add_parser(
        "verify",
        help="prove that a model in memory is its file, and computes what transformers computes",
        description="Check a model's configuration, weights and tensors, and compare what the "
        "engine in use here makes of four fixed windows with transformers' model in float32.",
    )
    checking.add_argument("name", metavar="NAME_OR_FOLDER", help=f"{', '.join(MODELS)}, or a path")
    _add_models(checking)
    _add_engine(checking)
    checking.set_defaults(run=verify)
    fetching = actions.add_parser(
        "fetch",
        help="bring a model into the models folder",
        description="Bring a model into the models folder, at its pinned revision: from a folder, "
        "the Hugging Face hub's cache, or the hub.",
    )
    fetching.add_argument("name", metavar="NAME", help=", ".join(MODELS))
    fetching.add_argument(
        "--from", dest="source", type=Path, metavar="FOLDER", help="a copy to take, without network"
    )
    _add_models(fetching)
    fetching.set_defaults(run=fetch)
    listing = actions.add_parser(
        "list", help="list the known models", description="List the known models."
    )
    _add_models(listing)
    listing.set_defaults(run=show_models)


def add_estimate_parser(subparsers: Any) -> None:
    """Add ``estimate`` to the command line; see `add_parser`."""
    parser = subparsers.add_parser(
        "estimate",
        help="estimate how long extraction will take here",
        description="Time the extraction of a sample of a dataset, as if nothing were stored yet, "
        "and say how long all of it will take on this machine.",
    )
    parser.add_argument("--dataset", default="demo", help="default: %(default)s")
    parser.add_argument("--data", type=Path, default=Path("data"), help="default: %(default)s")
    parser.add_argument(
        "--encoder", help="a name or a folder; by default what the workflow takes for the dataset"
    )
    parser.add_argument("--window", type=float, default=5.0, metavar="SECONDS")
    parser.add_argument("--overlap", type=float, default=0.5)
    _add_engine(parser)
    parser.set_defaults(run=estimate)


def _add_models(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--models", type=Path, default=_MODELS, help="folder of models (default: %(default)s)"
    )


def _add_engine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", help=_DEVICE_HELP)
    parser.add_argument(
        "--precision", choices=_PRECISIONS, default="auto", help="default: %(default)s"
    )


def show_models(args: argparse.Namespace) -> int:
    """Print a table of the known models.

    Parameters
    ----------
    args : argparse.Namespace
        What `add_parser` defines.

    Returns
    -------
    int
        0.
    """
    rows: list[tuple[str, ...]] = [
        ("model", "layers", "dims", "revision", "weights", "licence", "here")
    ]
    rows += [_row(spec, args.models) for spec in MODELS.values()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())
    return 0


def _row(spec: MertSpec, models: Path) -> tuple[str, ...]:
    return (
        spec.name,
        str(spec.layers),
        str(spec.dims),
        spec.revision[:12] or "bundled",
        "pinned" if spec.weights_sha256 else "not pinned",
        spec.licence,
        "yes" if (models / spec.name).is_dir() else "no",
    )


def fetch(args: argparse.Namespace) -> int:
    """Bring a known model into the models folder, check it, and say what is next.

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
    EncoderError
        If the name is not known, the model is not to be had, or it is not the pinned one.
    """
    from mess_core.extraction.checkpoint import fetch_model, find_checkpoint

    spec = MODELS.get(args.name)
    if spec is None:
        raise EncoderError(
            f"{args.name!r} is no known model ({nearest(args.name, MODELS)}); a folder of your own "
            "needs no fetching: `mess model verify FOLDER`, and `encoder: FOLDER` in the config"
        )
    there = (args.models / spec.name).is_dir()
    if there and args.source:
        raise EncoderError(
            f"{args.models / spec.name} exists already; remove it first to take {args.source}"
        )
    if spec.source == "hub":
        fetch_model(spec, models=args.models, source=args.source)
    elif args.source:
        raise EncoderError(f"{spec.name} comes with this package; leave out --from")
    checkpoint = find_checkpoint(spec.name, models=args.models)
    print(f"{spec.name} {'was already' if there else 'is now'} at {checkpoint.folder}")
    print(f"weights: {checkpoint.weights.name}, sha256 {_digest(checkpoint, spec)}")
    models = "" if args.models == _MODELS else f" --models {shlex.quote(str(args.models))}"
    print(f"next: mess model verify {spec.name}{models}")
    print(f"      snakemake --config encoder={spec.name}")
    return 0


def verify(args: argparse.Namespace) -> int:
    """Check a model part by part, and print each with its outcome as soon as it is known.

    Parameters
    ----------
    args : argparse.Namespace
        What `add_parser` defines.

    Returns
    -------
    int
        0: everything holds.

    Raises
    ------
    EncoderError
        If anything does not; what was printed until then holds.
    """
    from mess_core.extraction.checkpoint import find_checkpoint
    from mess_core.extraction.specs import resolve_spec

    checkpoint = find_checkpoint(args.name, models=args.models)
    _say("model", f"{checkpoint.spec.name}, {_origin(checkpoint)}")
    _say_configuration(checkpoint)
    _say("weights", f"{checkpoint.weights.name}, {checkpoint.weights.stat().st_size:,} bytes")
    _say("sha256", _digest(checkpoint, resolve_spec(args.name)))
    expected, pooled = _reference(checkpoint)
    _say_facts(checkpoint, frames=expected.shape[2])
    _say_golden_hash(pooled)
    _compare_engines(args, checkpoint, expected)
    print("verified")
    return 0


def _say(what: str, outcome: str) -> None:
    print(
        textwrap.fill(
            outcome,
            100,
            initial_indent=f"{what:<15}",
            subsequent_indent=" " * 15,
            break_long_words=False,
            break_on_hyphens=False,
        ),
        flush=True,
    )


def _origin(checkpoint: "Checkpoint") -> str:
    spec = checkpoint.spec
    if spec.source == "hub":
        return f"{spec.location} at revision {spec.revision}, in {checkpoint.folder}"
    return f"{'bundled, ' if spec.source == 'bundled' else ''}in {checkpoint.folder}"


def _digest(checkpoint: "Checkpoint", published: MertSpec) -> str:
    pinned = "as pinned" if published.weights_sha256 else "not pinned: nothing to compare it with"
    return f"{checkpoint.spec.weights_sha256} ({pinned})"


def _say_configuration(checkpoint: "Checkpoint") -> None:
    config = read_model_json(checkpoint.folder / "config.json")
    followed = ", ".join(f"{key}={value}" for key, value in sorted(checkpoint.config.items()))
    ignored = ", ".join(
        f"{key}={value}" for key, value in sorted(config.items()) if key not in checkpoint.config
    )
    _say("configuration", f"ok; followed: {followed}")
    _say("", f"ignored, being off or without effect on hidden states: {ignored}")


def _reference(checkpoint: "Checkpoint") -> "tuple[Floats, Floats]":
    """Return what transformers' own model and preprocessor make of the check windows.

    All hidden states ``[n, layers, time, dims]``, and the means over time of `HiddenStates`.
    """
    import torch
    from transformers import Wav2Vec2FeatureExtractor

    from mess_core.extraction.golden import check_windows
    from mess_core.extraction.torch_engine import HiddenStates, load_hubert

    model = load_hubert(checkpoint)
    tensors = model.state_dict().values()
    values = sum(tensor.numel() for tensor in tensors)
    _say(
        "tensors",
        f"ok: {len(tensors)} tensors with {values:,} values, each in memory equal to the file's; "
        "none missing, none left over",
    )
    spec = checkpoint.spec
    windows = check_windows(_samples(spec), sample_rate=spec.sample_rate)
    prepare: Any = Wav2Vec2FeatureExtractor(  # type: ignore[no-untyped-call]
        sampling_rate=spec.sample_rate, do_normalize=checkpoint.normalize
    )
    inputs = prepare(list(windows), sampling_rate=spec.sample_rate, return_tensors="pt")
    with torch.inference_mode():
        states = model(inputs.input_values, output_hidden_states=True).hidden_states
        frames = torch.stack(states, dim=1).numpy()
        module = HiddenStates(model, normalize=checkpoint.normalize)
        (pooled,) = module(torch.from_numpy(windows))
    return frames, pooled.numpy()


def _samples(spec: MertSpec) -> int:
    return round(spec.window_s * spec.sample_rate)


def _say_facts(checkpoint: "Checkpoint", *, frames: int) -> None:
    spec = checkpoint.spec
    _say("licence", spec.licence)
    said = spec.source != "folder" or "mess_trained" in read_model_json(
        checkpoint.folder / "config.json"
    )
    trained = "yes" if spec.trained else "no: results show the mechanism only"
    _say("trained", trained if said else "taken for trained, its config.json says nothing")
    _say("layers", f"{spec.layers} (0 is the transformer's input)")
    _say("dims", str(spec.dims))
    _say("sample rate", f"{spec.sample_rate} samples per second")
    _say("frame rate", f"{spec.frame_rate:g} frames per second")
    _say("window", f"{spec.window_s:g} s: {_samples(spec)} samples, {frames} frames")
    how = "to mean 0 and variance 1" if checkpoint.normalize else "not at all"
    _say("normalisation", f"{how}, every window (do_normalize: {checkpoint.normalize})")


def _say_golden_hash(pooled: "Floats") -> None:
    from mess_core.extraction.golden import golden_hash

    _say("golden hash", f"{golden_hash(pooled)} (float32, {len(pooled)} check windows)")


def _compare_engines(
    args: argparse.Namespace, checkpoint: "Checkpoint", expected: "Floats"
) -> None:
    """Compare the engine in use, in its precision and in float32, with transformers' model."""
    from importlib.metadata import version

    from mess_core.extraction.encoder import load_encoder

    def load(precision: str) -> "MertEncoder":
        return load_encoder(
            args.name,
            models=args.models,
            device=args.device,
            precision=precision,
            window_s=checkpoint.spec.window_s,
        )

    chosen = load(args.precision)
    engine = chosen.engine
    _say("engine", f"{engine.name} on {engine.device}, {engine.precision}")
    for note in chosen.notes:
        _say("  not taken", note)
    encoders = {engine.precision: chosen}
    if engine.precision != "float32":
        encoders["float32"] = load("float32")
    agreements = {name: _agreement(encoder, expected) for name, encoder in encoders.items()}
    _say(
        "hidden states",
        f"compared with those of HubertModel (transformers {version('transformers')}, float32): "
        "error relative to the layer's largest value, cosine of the means over time",
    )
    _print_agreements(agreements)
    _check_agreements(checkpoint.spec.name, agreements)


def _agreement(encoder: "MertEncoder", expected: "Floats") -> "Agreement":
    from mess_core.extraction.golden import Agreement, check_windows, compare

    spec = encoder.spec
    windows = check_windows(_samples(spec), sample_rate=spec.sample_rate)
    found = np.concatenate([encoder.hidden_states(window[np.newaxis]) for window in windows])
    pooled = np.concatenate([encoder.pooled(window[np.newaxis]) for window in windows])
    cosine = compare(pooled, expected.mean(axis=2)).cosine
    return Agreement(compare(found, expected).error, cosine)


def _print_agreements(agreements: "dict[str, Agreement]") -> None:
    titles = (f"{name:>10} error  cosine" for name in agreements)
    print(f"{'layer':>8}  " + "  ".join(titles))
    for layer in range(len(next(iter(agreements.values())).error)):
        cells = (f"{a.error[layer]:>16.1e}  {a.cosine[layer]:.5f}" for a in agreements.values())
        print(f"{layer:>8}  " + " ".join(cells))


def _check_agreements(name: str, agreements: "dict[str, Agreement]") -> None:
    from mess_core.extraction.golden import MAX_ERROR, MIN_COSINE

    for precision, agreement in agreements.items():
        error, cosine = max(agreement.error), min(agreement.cosine)
        if precision == "float32" and not error <= MAX_ERROR:
            raise EncoderError(
                f"{name}: float32 differs from transformers' model by {error:.1e} of a layer's "
                f"largest value, the limit is {MAX_ERROR:.0e}; do not use this engine"
            )
        if not cosine >= MIN_COSINE:
            raise EncoderError(
                f"{name}: {precision} has a cosine of {cosine:.5f} to float32 in the worst layer, "
                f"the limit is {MIN_COSINE}; use `precision: float32`"
            )


def estimate(args: argparse.Namespace) -> int:
    """Print how long the extraction of a dataset will take on this machine.

    Parameters
    ----------
    args : argparse.Namespace
        What `add_estimate_parser` defines.

    Returns
    -------
    int
        0.

    Raises
    ------
    DatasetError
        If the dataset has no recording table, or none of its recordings can be used.
    EncoderError
        If the encoder cannot be had.
    """
    from mess_core.extraction import FeatureExtractor, estimate_extraction_time
    from mess_core.recordings import judge, read_recordings, usable
    from mess_core.workflow.config import Settings

    layout, default = Layout(args.data, args.dataset), Settings(dataset=args.dataset)
    recordings = usable(judge(read_recordings(layout.table), args.window))
    extractor = FeatureExtractor(
        args.encoder or default.encoder,
        window_s=args.window,
        overlap=args.overlap,
        models=layout.models,
        device=args.device,
        precision=default.precision if args.precision == "auto" else args.precision,
    )
    print(extractor.encoder.describe(), flush=True)
    expected = estimate_extraction_time(extractor, recordings)
    hours = sum(r.duration_s for r in recordings) / 3600
    print(f"{len(recordings)} recordings, {hours:.2f} hours of audio, {expected.windows} windows")
    print(f"about {_duration(expected.seconds)}, by the time of {expected.sampled} windows")
    return 0


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
