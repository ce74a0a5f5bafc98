"""``mess model``: get encoders, list them, prove one; ``mess estimate``: how long one will take."""

__all__ = ["add_parser", "estimate", "fetch", "show_models", "verify"]

import argparse
import shlex
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mess_core.cli.printing import length, table
from mess_core.errors import EncoderError, nearest
from mess_core.extraction.golden import (
    MAX_ERROR,
    MIN_COSINE,
    Floats,
    check_windows,
    compare,
    golden_hash,
)
from mess_core.extraction.specs import (
    DESCRIPTORS,
    MODELS,
    EncoderSpec,
    is_here,
    read_model_json,
    resolve_spec,
)
from mess_core.layout import Layout
from mess_core.progress import duration

if TYPE_CHECKING:
    from mess_core.extraction.checkpoint import Checkpoint

_MODELS = Path("data/models")


def add_parser(subparsers: Any) -> None:
    """Add ``model`` and ``estimate`` to the command line."""
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
    _add_estimate(subparsers)


def _add_estimate(subparsers: Any) -> None:
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
    parser.add_argument("--window", type=length, default=5.0, metavar="SECONDS")
    parser.add_argument("--overlap", type=float, default=0.5)
    _add_engine(parser)
    parser.set_defaults(run=estimate)


def _add_models(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--models", type=Path, default=_MODELS, help="folder of models (default: %(default)s)"
    )


def _add_engine(parser: argparse.ArgumentParser) -> None:
    devices = "auto, cpu, cuda, cuda:1 or mps (default: %(default)s)"
    parser.add_argument("--device", default="auto", help=devices)
    precisions = ("auto", "float32", "bfloat16", "float16")
    parser.add_argument("--precision", choices=precisions, default="auto", help="default: auto")


def show_models(args: argparse.Namespace) -> int:
    """Print a table of the known models."""
    rows = [
        {
            "model": spec.name,
            "layers": str(spec.layers),
            "dims": str(spec.dims),
            "revision": spec.revision[:12] or "bundled",
            "weights": _weights(spec),
            "licence": spec.licence,
            "here": "yes" if is_here(spec, args.models) else "no",
        }
        for spec in MODELS.values()
    ]
    print("\n".join(table(rows)))
    return 0


def _weights(spec: EncoderSpec) -> str:
    if spec.kind == DESCRIPTORS:
        return "none"
    return "pinned" if spec.weights_sha256 else "not pinned"


def fetch(args: argparse.Namespace) -> int:
    """Bring a known model into the models folder, check it, and say what is next."""
    from mess_core.extraction.checkpoint import fetch_model, find_checkpoint

    spec = MODELS.get(args.name)
    if spec is None:
        raise EncoderError(
            f"{args.name!r} is no known model ({nearest(args.name, MODELS)}); a folder of your own "
            "needs no fetching: `mess model verify FOLDER`, and `encoder: FOLDER` in the config"
        )
    if spec.kind == DESCRIPTORS:
        raise EncoderError(f"{spec.name} has no weights: `encoder: {spec.name}` works as it is")
    there = is_here(spec, args.models)
    if there and args.source and spec.source == "hub":
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
    """Check a model part by part, and print each with its outcome as soon as it is known."""
    if resolve_spec(args.name).kind == DESCRIPTORS:
        return _verify_descriptors(resolve_spec(args.name))
    from mess_core.extraction.checkpoint import find_checkpoint

    checkpoint = find_checkpoint(args.name, models=args.models)
    spec, folder = checkpoint.spec, checkpoint.folder
    origin = {"hub": f"{spec.location} at revision {spec.revision}, ", "bundled": "bundled, "}
    _say("model", f"{spec.name}, {origin.get(spec.source, '')}in {folder}")
    config = read_model_json(folder / "config.json")
    ignored = {key: value for key, value in config.items() if key not in checkpoint.config}
    _say("configuration", f"ok; followed: {_listed(checkpoint.config)}")
    _say("", f"ignored, being off or without effect on hidden states: {_listed(ignored)}")
    _say("weights", f"{checkpoint.weights.name}, {checkpoint.weights.stat().st_size:,} bytes")
    _say("sha256", _digest(checkpoint, resolve_spec(args.name)))
    samples = round(spec.window_s * spec.sample_rate)
    windows = check_windows(samples, sample_rate=spec.sample_rate)
    expected, pooled = _reference(checkpoint, windows)
    _say("licence", spec.licence)
    trained = "yes" if spec.trained else "no: results show the mechanism only"
    said = spec.source != "folder" or "mess_trained" in config
    _say("trained", trained if said else "taken for trained, its config.json says nothing")
    _say("layers", f"{spec.layers} (0 is the transformer's input)")
    _say("dims", str(spec.dims))
    _say("sample rate", f"{spec.sample_rate} samples per second")
    _say("frame rate", f"{spec.frame_rate:g} frames per second")
    _say("window", f"{spec.window_s:g} s: {samples} samples, {expected.shape[2]} frames")
    how = "to mean 0 and variance 1" if checkpoint.normalize else "not at all"
    _say("normalisation", f"{how}, every window (do_normalize: {checkpoint.normalize})")
    _say("golden hash", f"{golden_hash(pooled)} (float32, {len(pooled)} check windows)")
    _compare_engines(args, spec, windows, expected)
    print("verified")
    return 0


def _verify_descriptors(spec: EncoderSpec) -> int:
    """Print what there is to know of an encoder without weights."""
    from mess_core.extraction.encoder import load_encoder

    samples = round(spec.window_s * spec.sample_rate)
    pooled = load_encoder(spec.name).pooled(check_windows(samples, sample_rate=spec.sample_rate))
    _say("model", f"{spec.name}: {spec.dims} defined numbers (docs/descriptors.md), no weights")
    _say("layers", f"{spec.layers}: {', '.join(spec.layer_names)}")
    _say("golden hash", f"{golden_hash(pooled)} (float32, {len(pooled)} check windows)")
    print("verified")
    return 0


def _say(what: str, outcome: str) -> None:
    lines = textwrap.wrap(outcome, 85, break_long_words=False, break_on_hyphens=False)
    print(f"{what:<15}" + f"\n{'':15}".join(lines), flush=True)


def _listed(config: dict[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in sorted(config.items()))


def _digest(checkpoint: "Checkpoint", published: EncoderSpec) -> str:
    pinned = "as pinned" if published.weights_sha256 else "not pinned: nothing to compare it with"
    return f"{checkpoint.spec.weights_sha256} ({pinned})"


def _reference(checkpoint: "Checkpoint", windows: Floats) -> tuple[Floats, Floats]:
    """Return what transformers' own model and preprocessor, or the small encoder's module, make."""
    import torch
    from transformers import Wav2Vec2FeatureExtractor

    from mess_core.extraction.torch_engine import load_module, load_states

    model = load_module(checkpoint)
    tensors = model.state_dict().values()
    values = sum(tensor.numel() for tensor in tensors)
    _say(
        "tensors",
        f"ok: {len(tensors)} tensors with {values:,} values, each in memory equal to the file's; "
        "none missing, none left over",
    )
    with torch.inference_mode():
        pooled, frames = load_states(checkpoint, raw=True)(torch.from_numpy(windows))
    if checkpoint.spec.kind == "small":
        return frames.numpy(), pooled.numpy()
    rate = checkpoint.spec.sample_rate
    prepare: Any = Wav2Vec2FeatureExtractor(  # type: ignore[no-untyped-call]
        sampling_rate=rate, do_normalize=checkpoint.normalize
    )
    prepared = prepare(list(windows), sampling_rate=rate, return_tensors="pt").input_values
    with torch.inference_mode():
        states = model(prepared, output_hidden_states=True).hidden_states
        return torch.stack(states, dim=1).numpy(), pooled.numpy()


def _compare_engines(
    args: argparse.Namespace, spec: EncoderSpec, windows: Floats, expected: Floats
) -> None:
    """Compare the engine in use, in its precision and in float32, with transformers' model."""
    from mess_core.extraction.encoder import load_encoder

    small = spec.kind == "small"
    reference = "torch's own operations" if small else "transformers' HubertModel"
    for precision in dict.fromkeys((args.precision, "float32")):
        encoder = load_encoder(
            args.name,
            models=args.models,
            device=args.device,
            precision=precision,
            window_s=spec.window_s,
        )
        engine = encoder.engine
        found = np.concatenate([encoder.hidden_states(window[np.newaxis]) for window in windows])
        pooled = np.concatenate([encoder.pooled(window[np.newaxis]) for window in windows])
        error = max(compare(found, expected).error)
        cosine = min(compare(pooled, expected.mean(axis=2)).cosine)
        _say("engine", f"{engine.name} on {engine.device}, {engine.precision}")
        for note in encoder.notes:
            _say("  not taken", note)
        _say(
            "hidden states",
            f"in the worst layer {error:.1e} of its largest value away from {reference} in "
            f"float32, cosine of the means over time {cosine:.5f}",
        )
        if engine.precision == "float32" and not error <= MAX_ERROR:
            raise EncoderError(
                f"{spec.name}: float32 differs from transformers' model by {error:.1e} of a "
                f"layer's largest value, the limit is {MAX_ERROR:.0e}; do not use this engine"
            )
        if not cosine >= MIN_COSINE:
            raise EncoderError(
                f"{spec.name}: {engine.precision} has a cosine of {cosine:.5f} to float32 in the "
                f"worst layer, the limit is {MIN_COSINE}; use `precision: float32`"
            )


def estimate(args: argparse.Namespace) -> int:
    """Print how long the extraction of a dataset will take on this machine."""
    from mess_core.extraction import FeatureExtractor, estimate_extraction_time
    from mess_core.recordings import judge, read_recordings, usable
    from mess_core.workflow.config import Settings

    layout = Layout(args.data, args.dataset)
    default = Settings(dataset=args.dataset, data=args.data)
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
    print(f"about {duration(expected.seconds)}, by the time of {expected.sampled} windows")
    return 0
