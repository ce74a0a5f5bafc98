"""What the workflow needs to know to plan: shards, output files, and what makes a result stale.

Staleness is content. Every rule carries one dict of builtins as its params: the stage's version,
the settings that matter to it, and digests of what it reads (from the recording table's hashes,
never from file times). Snakemake reruns a job when its params differ from those that made its
outputs.

This module is read whenever the Snakefile is parsed, also by every job: it imports nothing heavy
and opens nothing but the recording table, the manifests, and a local model folder (hashed once).
"""

__all__ = ["ANALYSIS_RATE", "Plan", "shard_of"]

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mess_core import stages
from mess_core.config import Settings
from mess_core.errors import StorageError
from mess_core.extraction.specs import MertSpec, resolve_spec
from mess_core.files import file_sha256, fingerprint, read_json, write_json
from mess_core.layout import INDEX_KINDS
from mess_core.recordings import Recording, judge, read_recordings, usable

#: Samples per second at which audio targets are measured.
ANALYSIS_RATE = 24_000

Params = dict[str, Any]


def shard_of(recording_id: str, shards: int) -> str:
    """Return the shard that a recording belongs to, whatever other recordings there are.

    Parameters
    ----------
    recording_id : str
        The recording.
    shards : int
        Number of shards.

    Returns
    -------
    str
        The shard's number with leading zeros, so that names sort.
    """
    digest = hashlib.sha256(recording_id.encode()).digest()
    number = int.from_bytes(digest[:8], "big") % shards
    return str(number).zfill(len(str(shards - 1)))


@dataclass(frozen=True)
class Plan:
    """Settings and recordings, and what follows from them.

    Attributes
    ----------
    settings : Settings
        The configuration.
    recordings : tuple of Recording
        The usable recordings that are at least one window long.
    """

    settings: Settings
    recordings: tuple[Recording, ...]

    @classmethod
    def read(cls, settings: Settings) -> "Plan":
        """Read the recording table.

        Raises
        ------
        DatasetError
            If there is none, or it is malformed.
        """
        rows = judge(read_recordings(settings.layout.table), settings.window_s)
        return cls(settings, tuple(usable(rows)))

    @cached_property
    def shards(self) -> dict[str, tuple[Recording, ...]]:
        """The recordings of every shard that has any."""
        members: dict[str, list[Recording]] = {}
        for recording in self.recordings:
            name = shard_of(recording.recording_id, self.settings.shards)
            members.setdefault(name, []).append(recording)
        return {name: tuple(members[name]) for name in sorted(members)}

    def feature_files(self, shard: str) -> list[Path]:
        """Return the feature files of a shard's recordings, in all views."""
        return [
            self.settings.layout.features(view, r.recording_id)
            for view in self.settings.views
            for r in self.shards[shard]
        ]

    def target_files(self, shard: str) -> list[Path]:
        """Return the targets files of a shard's recordings."""
        return [self.settings.layout.targets(r.recording_id) for r in self.shards[shard]]

    @cached_property
    def spec(self) -> MertSpec:
        """The encoder's facts, with the weights' hash for a local folder."""
        return resolve_spec(self.settings.encoder)

    @cached_property
    def _encoder(self) -> Params:
        spec = self.spec
        folder = Path(spec.location).expanduser() if spec.source == "folder" else None
        return {
            "name": spec.name,
            "revision": spec.revision,
            "weights": _folder_hash(folder, self.settings.layout.models)
            if folder
            else spec.weights_sha256,
        }

    def _features(self, recordings: Iterable[Recording]) -> str:
        return fingerprint(
            {
                "stage": stages.FEATURES,
                "encoder": self._encoder,
                "precision": self.settings.precision,
                "window_s": self.settings.window_s,
                "overlap": self.settings.overlap,
                "recordings": [[r.recording_id, r.audio_sha256] for r in recordings],
            }
        )

    def _targets(self, recordings: Iterable[Recording]) -> str:
        return fingerprint(
            {
                "stage": stages.TARGETS,
                "sample_rate": ANALYSIS_RATE,
                "recordings": [[r.recording_id, r.audio_sha256, r.midi_sha256] for r in recordings],
            }
        )

    def is_gathered(self, kind: str) -> bool:
        """Say whether the features or targets that the last run gathered are those of this plan.

        Parameters
        ----------
        kind : {'features', 'targets'}
            What was gathered.
        """
        try:
            manifest = read_json(self.settings.layout.manifest(kind))
            return bool(manifest["digest"] == self.gathering_params(kind)["digest"])
        except (StorageError, KeyError, TypeError):
            return False

    def gathering_params(self, kind: str) -> Params:
        """Return what makes the manifest of all features or targets stale."""
        digest = self._features if kind == "features" else self._targets
        return {"kind": kind, "digest": digest(self.recordings)}

    def features_params(self, shard: str) -> Params:
        """Return what makes a shard's features stale."""
        raw = self.settings.raw_dtype if self.settings.save_raw else None
        return {"shard": shard, "digest": self._features(self.shards[shard]), "raw": raw}

    def targets_params(self, shard: str) -> Params:
        """Return what makes a shard's targets stale."""
        return {"shard": shard, "digest": self._targets(self.shards[shard])}

    @cached_property
    def _probing(self) -> Params:
        return {
            "stage": stages.PROBING,
            "works": fingerprint({r.recording_id: r.work_id for r in self.recordings}),
            "n_folds": self.settings.n_folds,
            "alphas": list(self.settings.alphas),
        }

    def probing_params(self, target: str) -> Params:
        """Return what makes a probing result stale, besides the manifests."""
        return {"target": target, **self._probing}

    def aspects_params(self) -> Params:
        """Return what makes the aspect map stale, besides the probing results."""
        return {
            "stage": stages.ASPECTS,
            "min_r2": self.settings.min_r2,
            "targets": list(self.settings.targets),
        }

    def index_params(self, kind: str) -> Params:
        """Return what makes an index stale, besides the manifest and the aspect map."""
        identity = [
            [r.recording_id, r.work_id, r.performer, r.composer, r.title, r.split, r.duration_s]
            for r in self.recordings
        ]
        return {
            "stage": stages.INDEX,
            "kind": kind,
            "recordings": fingerprint({"rows": identity}),
        }

    def publish_params(self) -> Params:
        """Return what makes a publication stale, besides the artifacts."""
        return {
            "stage": stages.PUBLISH,
            "destination": self.settings.destination,
            "kinds": list(INDEX_KINDS),
        }


def _folder_hash(folder: Path, models: Path) -> str:
    """Return the hash of a model folder's files, reading a file again only when it changed."""
    known_path = models / "hashes.json"
    try:
        known: dict[str, Any] = read_json(known_path)
    except StorageError:
        known = {}
    files = [
        path
        for name in (
            "config.json",
            "preprocessor_config.json",
            "model.safetensors",
            "pytorch_model.bin",
        )
        if (path := folder / name).is_file()
    ]
    facts = {}
    for path in files:
        stat = path.stat()
        stamp = [stat.st_size, stat.st_mtime_ns]
        key = str(path.resolve())
        if known.get(key, [None])[0] != stamp:
            known[key] = [stamp, file_sha256(path)]
            write_json(known_path, known)
        facts[path.name] = known[key][1]
    return fingerprint(facts)
