"""Where everything of one dataset lies below the data folder: the paths that users rely on."""

__all__ = [
    "ANSWERS",
    "DESCRIPTORS",
    "ENCODER",
    "INDEX_KINDS",
    "PAGES",
    "PROVENANCE",
    "QUESTIONS",
    "SOURCES",
    "UNTRAINED",
    "VIEWS",
    "Layout",
]

from dataclasses import dataclass, replace
from pathlib import Path

#: The stored forms of a recording's features, from the largest to the smallest.
VIEWS = ("raw", "segments", "aggregated")

#: What one row of an index is: a whole recording, or one window of it.
INDEX_KINDS = ("recordings", "clips")


#: Whose features are probed: the encoder's, and what they are compared with: an untrained encoder's
#: of the same shape, and descriptors.
SOURCES = ENCODER, UNTRAINED, DESCRIPTORS = ("encoder", "untrained", "descriptors")

#: The folder below the data folder that says of every output how it was made.
PROVENANCE = "provenance"

#: What probing answers, each with a table and a picture.
QUESTIONS = ("layers", "stability", "separability", "collapse")

#: All tables with a picture: those of probing, whether the targets measure what they say, how good
#: answers are, and the performances of each work against each other.
ANSWERS = (*QUESTIONS, "validity", "evaluation", "performances")

#: Pages for people: all of the report, and sections of it by themselves.
PAGES = ("report", "aspects", "examples", "facts")


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths of one dataset below the data folder, usually ``data``.

    ``variant`` says whose features: the encoder's (empty), or those of one of the other `SOURCES`.
    """

    data: Path
    dataset: str
    variant: str = ""

    def of(self, source: str) -> "Layout":
        """Return the paths of the features of one of `SOURCES`."""
        return replace(self, variant="" if source == ENCODER else source)

    @property
    def metadata(self) -> Path:
        """The folder of all tables."""
        return self.data / "metadata"

    @property
    def table(self) -> Path:
        """The recording table."""
        return self.metadata / f"{self.dataset}.tsv"

    @property
    def problems(self) -> Path:
        """Recordings that cannot be used, with the reasons."""
        return self.metadata / f"{self.dataset}.problems.tsv"

    @property
    def demo_truth(self) -> Path:
        """The demo corpus's companion table: the parameters of every interpretation."""
        return self.metadata / "demo.interpretations.tsv"

    @property
    def judgments(self) -> Path:
        """What people judged: triplets (``.jsonl``) and ratings (``.csv``), of all datasets."""
        return self.data / "judgments"

    @property
    def judgment_files(self) -> list[Path]:
        """The files in it that count."""
        return sorted(
            p for p in self.judgments.glob("*") if p.suffix in (".jsonl", ".csv") and p.is_file()
        )

    @property
    def demo_audio(self) -> Path:
        """The demo corpus's audio and MIDI."""
        return self.data / "audio" / "demo"

    @property
    def scan(self) -> Path:
        """What the last scan saw of every file, so that the next reads only what changed."""
        return self.metadata / f"{self.dataset}.scan.json"

    @property
    def embeddings(self) -> Path:
        """The folder of all features."""
        return (
            self.data / "embeddings" / "-".join(filter(None, (self.dataset, self.variant, "emb")))
        )

    def features(self, view: str, recording_id: str) -> Path:
        """The features of a recording in one of `VIEWS`."""
        return self.embeddings / view / f"{recording_id}.npy"

    def targets(self, recording_id: str) -> Path:
        """The proxy targets of a recording."""
        return self.data / "proxy_targets" / self.dataset / f"{recording_id}_targets.npz"

    def alignment(self, recording_id: str) -> Path:
        """How a recording lies on the time axis of its work, and what follows from that."""
        return self._sharded("alignments") / f"{recording_id}.npz"

    @property
    def alignments_manifest(self) -> Path:
        """The works whose recordings are aligned, and which recordings are left out."""
        return self._sharded("alignments") / "manifest.json"

    def _sharded(self, kind: str) -> Path:
        """The folder of what is made in shards: ``features``, ``targets`` or ``alignments``."""
        if kind == "features":
            return self.embeddings
        return self.data / {"targets": "proxy_targets"}.get(kind, kind) / self.dataset

    def receipt(self, kind: str, shard: str) -> Path:
        """What a shard's job has made."""
        return self._sharded(kind) / "shards" / f"{shard}.json"

    def extraction_report(self, shard: str) -> Path:
        """What happened in the last run of a shard's extraction."""
        folder = "-".join(filter(None, ("extraction", self.variant)))
        return self.reports / folder / f"{shard}.json"

    @property
    def features_manifest(self) -> Path:
        """What the extraction jobs of all shards together have made."""
        return self.embeddings / "manifest.json"

    @property
    def target_manifests(self) -> Path:
        """The folder of what the jobs of all shards together have measured."""
        return self._sharded("targets") / "manifests"

    def target_manifest(self, target: str) -> Path:
        """What the jobs of all shards together have measured of one target."""
        return self.target_manifests / f"{target}.json"

    @property
    def probing(self) -> Path:
        """The folder of all probing results."""
        return self.data / "probing" / self.dataset

    def probe(self, target: str) -> Path:
        """The probing result of a target."""
        return self.probing / f"{target}.json"

    @property
    def aspects(self) -> Path:
        """The aspect map."""
        return self.probing / "aspects.json"

    @property
    def geometry(self) -> Path:
        """The spaces that were learned and taken; beside it (``.json``) why."""
        return self.probing / "geometry.npz"

    def projection(self, kind: str) -> Path:
        """What makes the stored vectors of an index of one of `INDEX_KINDS`."""
        return self.probing / "projections" / f"{kind}.npz"

    def decomposition(self, source: str, layer: int | str) -> Path:
        """The rows of one layer of one of `SOURCES`, and what ridge regression needs of them."""
        return self.probing / "decompositions" / source / str(layer)

    def decomposition_receipt(self, source: str) -> Path:
        """Says that all layers of one of `SOURCES` are decomposed, and of which rows."""
        return self.probing / "decompositions" / source / "receipt.json"

    @property
    def counterfactuals(self) -> Path:
        """Features of the same notes played otherwise."""
        return self.data / "counterfactuals" / f"{self.dataset}.npz"

    @property
    def reports(self) -> Path:
        """The folder of tables and pictures for people."""
        return self.data / "reports" / self.dataset

    def answer(self, question: str, suffix: str) -> Path:
        """The table (``.tsv``) or picture (``.png``) of one of `ANSWERS`."""
        return self.reports / f"{question}{suffix}"

    def page(self, name: str) -> Path:
        """One of `PAGES`, which needs nothing but itself."""
        return self.reports / f"{name}.html"

    @property
    def tracked(self) -> Path:
        """What was logged to MLflow, and where."""
        return self.reports / "tracked.json"

    def index(self, kind: str) -> Path:
        """The folder of the index artifacts of one of `INDEX_KINDS`."""
        return self.data / "indices" / self.dataset / kind

    def index_receipt(self, kind: str) -> Path:
        """Which artifact is the current one of its kind."""
        return self.index(kind) / "receipt.json"

    @property
    def publish_receipt(self) -> Path:
        """What was published, and where."""
        return self.data / "indices" / self.dataset / "published.json"

    @property
    def models(self) -> Path:
        """Where encoders that the workflow makes are kept."""
        return self.data / "models"

    @property
    def trained(self) -> Path:
        """The small encoder that is trained here."""
        return self.models / "trained"

    @property
    def cache(self) -> Path:
        """The content-addressed store of computed arrays, shared by all datasets."""
        return self.data / "cache"
