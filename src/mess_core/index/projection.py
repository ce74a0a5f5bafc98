"""From features to stored vectors: spaces, a block per aspect, and what distances need.

A row's features are ``[layers, dims]``. Its stored vector is::

    [ general | learned spaces | aspect 1 | ... | aspect A | |aspect 1|^2 ... |aspect A|^2 ]

*General.* The features of the layers that know most about music (`coordinates.musical_layers`) are
centred by the corpus mean and scaled to unit length, so that layers count equally; put side by
side; projected on the G principal components, each divided by the square root of its variance,
shrunk towards their mean (whitening); and scaled to unit length. The similarity of two rows is the
cosine.

*Learned spaces*, if there are any, are made of the same unit features by a basis of their own, and
scaled to unit length. All spaces together have G numbers.

*Aspects.* Each is read from measured targets, or from the features of a layer
(`mess_core.probing.coordinates`): from the first of its sources that a row has what it needs for. A
target that is undefined counts as the corpus mean. Coordinates have variance 1. Those of probes,
which take one aspect for another, are decorrelated over aspects by the symmetric square root
``R^-1/2`` of their correlation matrix (ZCA: of all decorrelated coordinates those closest to the
original ones; Kessy, Lewin and Strimmer 2018, "Optimal whitening and decorrelation"), shrunk
towards the identity; what is measured keeps its correlations, and its coordinates their spread, so
that distances are those of the targets. A coordinate farther than `REACH` standard deviations out
is taken for that far, so that no outlier rules a query for what is *unlike*. Each block is scaled
to a total variance of 1/2: two rows taken at random have a squared distance of 1 on average. The
similarity is 1 minus the squared distance.

All similarities are 1 for equal rows and 0 on average for unrelated ones, and all are linear in the
stored vector. `mess_core.search.scoring` makes the query.
"""

__all__ = ["REACH", "AspectBlock", "Projection", "unit_rows"]

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from mess_core.errors import ArtifactError
from mess_core.targets.npz import source_of
from mess_core.targets.registry import ALIGNED, AUDIO, MIDI, PROBED

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

#: The space that compares everything.
GENERAL = "general"

#: What measured targets are of.
MEASURED = ALIGNED, MIDI, AUDIO

#: Standard deviations beyond which a coordinate is taken for this far out.
REACH = 3.0

#: A centred layer shorter than this share of its mean is rounding noise: ten times what float32
#: arithmetic leaves over (6e-8) with some room.
SMALLEST_SHARE = 1e-6


@dataclass(frozen=True, slots=True)
class AspectBlock:
    """Where an aspect lies in a stored vector."""

    name: str
    #: Its place among the aspects, from 0.
    number: int
    #: Its coordinates among those of all aspects, and in the stored vector.
    coordinates: slice
    stored: slice
    #: Where the stored vector has their squared length.
    norm: int


@dataclass(frozen=True, eq=False)
class Projection:
    """What turns features into stored vectors; B layers, D dims, G components, E coordinates."""

    #: The encoder's layers that are used [B], and the corpus mean of each [B, D].
    layers: npt.NDArray[np.int64]
    means: Floats
    #: From the layers' centred unit features, side by side, to components [B * D, G]: whitened
    #: ones, then those of learned spaces.
    basis: Floats
    #: The components' mean [G].
    centre: Floats
    #: The aspects [A], and the layer that each is read from; -1 where none is.
    names: npt.NDArray[np.str_]
    aspect_layers: npt.NDArray[np.int64]
    #: How many coordinates each aspect has [A]; they sum to E.
    sizes: npt.NDArray[np.int64]
    #: What each can be read from [A], the first choice first: ``midi audio probed``, for example.
    sources: npt.NDArray[np.str_]
    #: From an aspect's centred layer to its coordinates of variance 1 [D, E].
    readout: Floats
    #: The targets that are measured [T] (`mess_core.targets.npz`), their means, and what turns
    #: the centred ones into coordinates [T, E].
    columns: npt.NDArray[np.str_]
    column_means: Floats
    measured: Floats
    #: What is taken away from them [E].
    offset: Floats
    #: From coordinates to blocks [E, E]: ``R^-1/2`` and the blocks' scale.
    decorrelate: Floats
    #: The largest absolute value in a block [E]: `REACH` standard deviations.
    bounds: Floats
    #: From coordinates to predicted values [E, A], in standard deviations of the true value. 0 for
    #: aspects without a direction.
    value: Floats
    #: The shortest move in an aspect's own block that raises its predicted value by 1 [E].
    steer: Floats
    #: Of the predicted values [A]; NaN for aspects without a direction.
    standard_errors: Floats
    #: Per aspect, orthonormal directions of each space that tell of it [G, E]; 0 where there are
    #: fewer than coordinates.
    erase: Floats
    #: The learned spaces [S], and how many components each has [S].
    learned: npt.NDArray[np.str_] = field(default_factory=lambda: np.array([], np.str_))
    learned_sizes: npt.NDArray[np.int64] = field(default_factory=lambda: np.array([], np.int64))

    @property
    def dims(self) -> int:
        """Numbers per layer of the encoder."""
        return int(self.means.shape[1])

    @cached_property
    def general_layers(self) -> list[int]:
        """The layers that the general block is made of: those that the basis does not leave out."""
        used = self.basis[:, : self.general].reshape(len(self.layers), -1).any(axis=1)
        return [int(layer) for layer in self.layers[used]]

    @property
    def general(self) -> int:
        """Width of the general block."""
        return self.components - int(sum(self.learned_sizes.tolist()))

    @property
    def components(self) -> int:
        """Width of the blocks of all spaces."""
        return int(self.basis.shape[1])

    @cached_property
    def spaces(self) -> Mapping[str, slice]:
        """Where the block of each space lies in a stored vector, and among the components."""
        sizes = [self.general, *self.learned_sizes.tolist()]
        ends = np.cumsum(sizes).tolist()
        starts = [0, *ends[:-1]]
        return dict(zip([GENERAL, *self.learned.tolist()], map(slice, starts, ends), strict=True))

    @property
    def width(self) -> int:
        """Width of a stored vector."""
        return self.components + len(self.offset) + len(self.names)

    def describe(self) -> dict[str, Any]:
        """Return the shape of a stored vector as builtins, for the manifest."""
        learned = dict(zip(self.learned.tolist(), self.learned_sizes.tolist(), strict=True))
        return {
            "layers": self.layers.tolist(),
            "general_layers": self.general_layers,
            "dims": self.dims,
            "width": self.width,
            "general": self.general,
            **({"learned": learned} if learned else {}),
            "blocks": dict(zip(self.names.tolist(), self.sizes.tolist(), strict=True)),
            "sources": dict(zip(self.names.tolist(), self.sources.tolist(), strict=True)),
            "columns": self.columns.tolist(),
        }

    @cached_property
    def aspects(self) -> Mapping[str, AspectBlock]:
        """Where each aspect lies, by name."""
        ends = np.cumsum(self.sizes).tolist()
        starts = [0, *ends[:-1]]
        norms = self.components + len(self.offset)
        return {
            str(name): AspectBlock(
                str(name),
                number,
                slice(starts[number], ends[number]),
                slice(self.components + starts[number], self.components + ends[number]),
                norms + number,
            )
            for number, name in enumerate(self.names)
        }

    @cached_property
    def _places(self) -> npt.NDArray[np.int64]:
        """The place among the layers that each coordinate is read from [shape=(E,)], or -1."""
        place = {layer: n for n, layer in enumerate(self.layers.tolist())}
        places = [place.get(layer, -1) for layer in self.aspect_layers.tolist()]
        return np.repeat(np.array(places, np.int64), self.sizes)

    def read_from(self, kinds: Collection[str]) -> dict[str, str]:
        """Return what each aspect is read from, of features and these kinds of measured targets.

        The empty string is what cannot be read.
        """
        return {
            name: next((s for s in sources.split() if s in (*kinds, PROBED)), "")
            for name, sources in zip(self.names.tolist(), self.sources.tolist(), strict=True)
        }

    def read(
        self,
        features: npt.NDArray[np.floating[Any]],
        measured: npt.NDArray[np.floating[Any]] | None = None,
        kinds: Collection[str] = MEASURED,
    ) -> tuple[Doubles, Doubles, Bools]:
        """Read components and coordinates from the features [n, B, D] of the layers that are used.

        ``measured`` are the rows' `columns` [n, T], NaN where undefined; those of ``kinds`` are
        read. All rows are read at once: give a few thousand.

        Returns the components [n, G], not yet of unit length; the aspects' coordinates [n, E], of
        variance 1 over the corpus, 0 of an aspect that cannot be read; and what is usable, False
        [n, B] where a layer is not finite, or one that a space is made of equals the mean.
        """
        found = self.read_from([] if measured is None else kinds)
        sources = np.repeat(list(found.values()), self.sizes)
        rows = len(features)
        components = np.tile(-self.centre.astype(np.float64), (rows, 1))
        coordinates = np.tile(-self.offset.astype(np.float64) * (sources != ""), (rows, 1))
        usable = np.ones((rows, len(self.layers)), np.bool_)
        bases = self.basis.reshape(len(self.layers), self.dims, self.components)
        root = np.sqrt(len(self.layers))
        # What is not finite is not usable, and said to be so by the caller.
        with np.errstate(invalid="ignore", over="ignore"):
            for place in range(len(self.layers)):
                mine = (self._places == place) & (sources == PROBED)
                compared = bool(bases[place].any())
                if not compared and not mine.any():
                    continue
                centred = np.subtract(features[:, place], self.means[place], dtype=np.float64)
                coordinates[:, mine] += centred @ self.readout[:, mine].astype(np.float64)
                if compared:
                    unit, usable[:, place] = unit_rows(centred, self.means[place])
                    components += (unit / root).astype(np.float32) @ bases[place]
                else:
                    usable[:, place] = np.isfinite(coordinates[:, mine]).all(axis=1)
        if measured is not None:
            centred = np.nan_to_num(measured - self.column_means.astype(np.float64))
            of_column = np.array([source_of(c) for c in self.columns.tolist()], np.str_)
            for kind in MEASURED:
                mine, its = sources == kind, of_column == kind
                coordinates[:, mine] += centred[:, its] @ self.measured[its][:, mine].astype(float)
        return components, coordinates, usable

    def project(
        self,
        features: npt.NDArray[np.floating[Any]],
        measured: npt.NDArray[np.floating[Any]] | None = None,
        kinds: Collection[str] = MEASURED,
    ) -> tuple[Floats, Floats, Bools]:
        """Make stored vectors [n, width] of the features [n, B, D] of the layers that are used.

        Returns with them the aspects' predicted values [n, A], NaN for those without a direction,
        and which layers are usable [n, B]; see `read`.
        """
        components, coordinates, usable = self.read(features, measured, kinds)
        with np.errstate(invalid="ignore", over="ignore"):
            blocks = np.clip(coordinates @ self.decorrelate, -self.bounds, self.bounds)
            vectors = self.lay_out(components, blocks)
            predicted = (coordinates @ self.value).astype(np.float32)
        predicted[:, np.isnan(self.standard_errors)] = np.nan
        return vectors, predicted, usable

    def lay_out(
        self, components: npt.NDArray[np.floating[Any]], blocks: npt.NDArray[np.floating[Any]]
    ) -> Floats:
        """Put stored vectors [n, width] together from components [n, G] and blocks [n, E].

        The components of a space may have any length; those of no length stay so.
        """
        units = []
        for part in self.spaces.values():
            length = np.linalg.norm(components[:, part], axis=1, keepdims=True)
            units.append(components[:, part] / np.where(length > 0, length, 1.0))
        # Of the numbers as they are stored, so that the distance of equal rows is 0.
        stored = blocks.astype(np.float32)
        squares = np.square(stored.astype(np.float64))
        norms = [squares[:, a.coordinates].sum(axis=1) for a in self.aspects.values()]
        return np.column_stack([*units, stored, *norms]).astype(np.float32)

    def check(self) -> None:
        """Raise `ArtifactError` that names an array that does not fit or has impossible values."""
        b, e, a, g = len(self.layers), len(self.offset), len(self.names), self.basis.shape[-1]
        d, t = self.means.shape[-1], len(self.columns)
        shapes = {
            "layers": (b,),
            "means": (b, d),
            "basis": (b * d, g),
            "centre": (g,),
            **dict.fromkeys(("names", "aspect_layers", "sizes", "sources"), (a,)),
            "standard_errors": (a,),
            "readout": (d, e),
            **dict.fromkeys(("columns", "column_means"), (t,)),
            "measured": (t, e),
            **dict.fromkeys(("offset", "bounds", "steer"), (e,)),
            "decorrelate": (e, e),
            "value": (e, a),
            "erase": (g, e),
            **dict.fromkeys(("learned", "learned_sizes"), (len(self.learned),)),
        }
        for name, shape in shapes.items():
            array = getattr(self, name)
            kind = _KINDS.get(name, "f4")
            if array.shape != shape or (kind != "U" and array.dtype != np.dtype(kind)):
                raise ArtifactError(
                    f"the projection's {name} is {array.dtype} of shape {array.shape}, expected "
                    f"{kind} of shape {shape}"
                )
            if kind == "f4" and name != "standard_errors" and not np.isfinite(array).all():
                raise ArtifactError(f"the projection's {name} holds values that are not finite")
        if np.isinf(self.standard_errors).any() or (self.standard_errors < 0).any():
            raise ArtifactError(
                f"the projection's standard errors are {self.standard_errors.tolist()}, expected "
                "finite ones from 0, or NaN for aspects without a direction"
            )
        if (self.bounds < 0).any():
            raise ArtifactError("the projection's bounds hold values below 0")
        self._check_counts()

    def _check_counts(self) -> None:
        layers, names = self.layers.tolist(), self.names.tolist()
        if self.names.dtype.kind != "U" or not all(names) or len(set(names)) < len(names):
            raise ArtifactError(f"the projection's aspects are {names}, expected distinct names")
        taken, learned = [GENERAL, *names], self.learned.tolist()
        if not all(learned) or len({*taken, *learned}) < len(taken) + len(learned):
            raise ArtifactError(
                f"the projection's learned spaces are {learned}, expected distinct names, none of "
                f"them of {taken}"
            )
        if not layers or len(set(layers)) < len(layers) or min(layers) < 0:
            raise ArtifactError(
                f"the projection's layers are {layers}, expected distinct numbers from 0"
            )
        for name, sources in zip(names, self.sources.tolist(), strict=True):
            given = sources.split()
            if not given or not {*given} <= {*MEASURED, PROBED}:
                raise ArtifactError(
                    f"the projection reads {name!r} from {sources!r}, expected "
                    f"{', '.join((*MEASURED, PROBED))}"
                )
        if not set(self.aspect_layers.tolist()) <= {-1, *layers}:
            raise ArtifactError(
                f"aspects are read from layers {self.aspect_layers.tolist()}, but only {layers} "
                "are kept"
            )
        # As Python's integers, whose sums do not overflow.
        if min(self.sizes.tolist(), default=1) < 1 or (
            sum(self.sizes.tolist()) != len(self.offset) or self.general < 1
        ):
            raise ArtifactError(
                f"the projection's blocks have {self.sizes.tolist()} coordinates, expected "
                f"{len(self.offset)} in all, and {self.general} general ones, expected at least 1"
            )
        if min(self.learned_sizes.tolist(), default=1) < 1:
            raise ArtifactError(
                f"the projection's learned spaces have {self.learned_sizes.tolist()} components, "
                "expected at least 1 each"
            )


_KINDS = {
    **dict.fromkeys(("layers", "aspect_layers", "sizes", "learned_sizes"), "i8"),
    **dict.fromkeys(("names", "sources", "columns", "learned"), "U"),
}


def unit_rows(centred: Doubles, mean: Floats) -> tuple[Doubles, Bools]:
    """Scale a layer's centred rows [n, D] to unit length, and say which of them are usable.

    A row is not usable, and becomes 0, where nothing but the rounding of ``mean`` is left of it.
    """
    lengths = np.sqrt(np.einsum("nd,nd->n", centred, centred))
    usable = np.isfinite(lengths) & (lengths > SMALLEST_SHARE * np.linalg.norm(mean.astype(float)))
    return centred / np.where(usable, lengths, np.inf)[:, np.newaxis], usable
