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
import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mess_core import stages
from mess_core.errors import StorageError
from mess_core.extraction.specs import MertSpec, resolve_spec
from mess_core.files import file_sha256, fingerprint, read_json, write_json
from mess_core.layout import DESCRIPTORS, INDEX_KINDS, UNTRAINED
from mess_core.probing.aspects import ASPECT_REGISTRY
from mess_core.recordings import Recording, judge, read_recordings, usable
from mess_core.targets.registry import TARGETS
from mess_core.workflow.config import Settings

#: Samples per second at which audio targets are measured.
ANALYSIS_RATE = 24_000

Params = dict[str, Any]

# In the place of a recording's id in a path; no file's name can have it.
_ANY = "\0"


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
    original : Plan or None
        For the plan of an untrained twin's features, that of the encoder itself.
    problems : tuple of Recording
        Those that cannot be used, or whose MIDI or beats cannot, each with a reason.
    """

    settings: Settings
    recordings: tuple[Recording, ...]
    original: "Plan | None" = None
    problems: tuple[Recording, ...] = ()

    @classmethod
    def read(cls, settings: Settings) -> "Plan":
        """Read the recording table.

        Raises
        ------
        DatasetError
            If there is none, or it is malformed.
        """
        rows = judge(read_recordings(settings.layout.table), settings.window_s)
        problems = tuple(row for row in rows if row.reason)
        return cls(settings, tuple(usable(rows)), problems=problems)

    @cached_property
    def shards(self) -> dict[str, tuple[Recording, ...]]:
        """The recordings of every shard that has any."""
        if self.original:
            return self.original.shards
        members: dict[str, list[Recording]] = {}
        for recording in self.recordings:
            name = shard_of(recording.recording_id, self.settings.shards)
            members.setdefault(name, []).append(recording)
        return {name: tuple(members[name]) for name in sorted(members)}

    def feature_files(self, shard: str) -> list[str]:
        """Return the feature files of a shard's recordings, in all views."""
        layout = self.settings.layout
        return [
            name
            for view in self.settings.views
            for name in self._files(layout.features(view, _ANY), shard)
        ]

    def target_files(self, shard: str) -> list[str]:
        """Return the targets files of a shard's recordings."""
        return self._files(self.settings.layout.targets(_ANY), shard)

    def _files(self, pattern: Path, shard: str) -> list[str]:
        # Text, for there may be hundreds of thousands of them at every parse.
        before, after = str(pattern).rsplit(_ANY, 1)
        return [f"{before}{r.recording_id}{after}" for r in self.shards[shard]]

    @cached_property
    def missing_features(self) -> dict[str, list[str]]:
        """The feature files, by shard, that are gone although their shard was finished."""
        return {shard: self._gone("features", shard, self.feature_files) for shard in self.shards}

    @cached_property
    def missing_targets(self) -> dict[str, list[str]]:
        """The targets files, by shard, that are gone although their shard was finished."""
        return {shard: self._gone("targets", shard, self.target_files) for shard in self.shards}

    def _gone(self, kind: str, shard: str, files: Callable[[str], list[str]]) -> list[str]:
        if not self.settings.layout.receipt(kind, shard).exists():
            return []
        # A Path for each of hundreds of thousands takes three times as long.
        return [name for name in files(shard) if not os.path.exists(name)]  # noqa: PTH110

    @cached_property
    def n_rows(self) -> int:
        """How many rows probing has: windows, as the recordings' durations say, or recordings."""
        if self.settings.rows == "recordings":
            return len(self.recordings)
        hop = self.settings.window_s * (1 - self.settings.overlap)
        return sum(
            1 + math.ceil((r.duration_s - self.settings.window_s) / hop - 1e-3)
            for r in self.recordings
        )

    @cached_property
    def untrained(self) -> "Plan":
        """The plan of the features of the encoder's untrained twin."""
        return Plan(self.settings.untrained, self.recordings, self)

    @cached_property
    def extractions(self) -> tuple["Plan", ...]:
        """The plans of all features: the encoder's, and its twin's where it is a baseline."""
        return (self, self.untrained) if UNTRAINED in self.settings.baselines else (self,)

    @cached_property
    def spec(self) -> MertSpec:
        """The encoder's facts, with the weights' hash for a local folder."""
        return resolve_spec(self.settings.encoder)

    def layers(self, source: str) -> range:
        """Return the layers of one of `layout.SOURCES`; descriptors are one layer."""
        return range(1 if source == DESCRIPTORS else self.spec.layers)

    def untrained_params(self) -> Params:
        """Return what makes the untrained twin stale."""
        return {"stage": stages.UNTRAINED, "encoder": fingerprint(self._encoder)}

    @cached_property
    def _encoder(self) -> Params:
        if self.original:
            return self.original.untrained_params()
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

    def _targets(self, targets: Iterable[str], sources: str) -> str:
        return fingerprint(
            {
                "stage": stages.TARGETS,
                "targets": [[name, _version(name)] for name in targets],
                "sample_rate": ANALYSIS_RATE,
                "window_s": self.settings.window_s,
                "overlap": self.settings.overlap,
                "recordings": sources,
            }
        )

    @cached_property
    def _target_sources(self) -> str:
        # Once for all targets: each of them asks for it, whenever the Snakefile is parsed.
        return _target_sources(self.recordings)

    @property
    def has_features(self) -> bool:
        """Whether the features that the last run gathered are those of this plan."""
        return _holds(self.settings.layout.features_manifest, self.features_digest)

    @cached_property
    def features_digest(self) -> str:
        """What the manifest of all features holds when it is that of this plan."""
        return self._features(self.recordings)

    def has_target(self, name: str) -> bool:
        """Say whether what the last run gathered of a target is that of this plan.

        Parameters
        ----------
        name : str
            A target, or `layout.DESCRIPTORS`.
        """
        return _holds(self.settings.layout.target_manifest(name), self.target_digest(name))

    def target_digest(self, name: str) -> str:
        """Return what the manifest of one target holds when it is that of this plan."""
        return self._targets([name], self._target_sources)

    @cached_property
    def measured(self) -> tuple[str, ...]:
        """The targets that are probed, and the descriptors where they are a baseline."""
        return (*self.settings.targets, *({DESCRIPTORS} & set(self.settings.baselines)))

    @cached_property
    def ungathered(self) -> tuple[str, ...]:
        """Those of `measured` whose manifest is not that of this plan."""
        return tuple(name for name in self.measured if not self.has_target(name))

    def foreign_target_manifests(self) -> list[Path]:
        """Return the manifests of targets that are there and not those of this plan."""
        folder = self.settings.layout.target_manifests
        return [
            path
            for path in sorted(folder.glob("*.json"))
            if path.stem not in (*TARGETS, DESCRIPTORS) or not self.has_target(path.stem)
        ]

    def gather_features_params(self) -> Params:
        """Return what makes the manifest of all features stale."""
        return {"variant": self.settings.variant, "digest": self.features_digest}

    def gather_targets_params(self) -> Params:
        """Return the digests of the targets whose manifests have to be written."""
        return {"digests": {name: self.target_digest(name) for name in self.ungathered}}

    def features_params(self, shard: str) -> Params:
        """Return what makes a shard's features stale."""
        raw = self.settings.raw_dtype if self.settings.save_raw else None
        return {
            "variant": self.settings.variant,
            "shard": shard,
            "digest": self._features(self.shards[shard]),
            "raw": raw,
        }

    def targets_params(self, shard: str) -> Params:
        """Return what makes a shard's targets stale: any target, whether it is probed or not."""
        sources = _target_sources(self.shards[shard])
        return {"shard": shard, "digest": self._targets(TARGETS, sources)}

    @cached_property
    def _folds(self) -> Params:
        return {
            "rows": self.settings.rows,
            "works": fingerprint({r.recording_id: r.work_id for r in self.recordings}),
            "n_folds": self.settings.n_folds,
        }

    def decomposition_params(self, source: str) -> Params:
        """Return what makes a source's decompositions stale, besides the manifest."""
        return {"stage": stages.DECOMPOSITION, "source": source, **self._folds}

    def probing_params(self, target: str) -> Params:
        """Return what makes a probing result stale, besides the manifest and decompositions."""
        return {
            "stage": stages.PROBING,
            "target": target,
            "alphas": list(self.settings.alphas),
            "sources": list(self.settings.sources),
            **self._folds,
        }

    def question_targets(self, question: str) -> tuple[str, ...]:
        """Return the targets whose probing results answer one of `layout.QUESTIONS`."""
        if question == "collapse":
            return ()
        return self.aspect_targets if question == "separability" else self.settings.targets

    def question_params(self, question: str) -> Params:
        """Return what makes an answer stale, besides the probing results and decompositions."""
        return {
            "stage": stages.QUESTIONS,
            "question": question,
            "targets": list(self.question_targets(question)),
            "sources": list(self.settings.sources),
        }

    def tracking_params(self) -> Params:
        """Return where probing results are logged to, besides themselves."""
        return {
            "uri": self.settings.tracking_uri,
            "experiment": self.settings.tracking_experiment,
        }

    @cached_property
    def aspect_targets(self) -> tuple[str, ...]:
        """The targets that are probed and serve an aspect; others change no aspect."""
        used = {target for aspect in ASPECT_REGISTRY.values() for target in aspect.targets}
        return tuple(target for target in self.settings.targets if target in used)

    def aspects_params(self) -> Params:
        """Return what makes the aspect map stale, besides the probing results."""
        return {
            "stage": stages.ASPECTS,
            "min_r2": self.settings.min_r2,
            "targets": list(self.aspect_targets),
            "aspects": {a.name: [list(a.targets), a.more] for a in ASPECT_REGISTRY.values()},
        }

    def projection_params(self, kind: str) -> Params:
        """Return what makes a projection stale, besides aspects, probes and decompositions."""
        return {"stage": stages.PROJECTION, "kind": kind, **self._folds}

    def index_params(self, kind: str) -> Params:
        """Return what makes an index stale, besides manifest, aspect map and projection."""
        identity = [
            [r.recording_id, r.work_id, r.performer, r.composer, r.title, r.split, r.duration_s]
            for r in self.recordings
        ]
        return {
            "stage": stages.INDEX,
            "kind": kind,
            "recordings": fingerprint({"rows": identity}),
            "exact_up_to": self.settings.exact_up_to,
            "memory_gb": self.settings.memory_gb,
        }

    def publish_params(self) -> Params:
        """Return what makes a publication stale, besides the artifacts."""
        return {
            "stage": stages.PUBLISH,
            "destination": self.settings.destination,
            "kinds": list(INDEX_KINDS),
        }

    def validity_params(self) -> Params:
        """Return what makes the validity of the targets stale, besides their manifests."""
        return {
            "stage": stages.VALIDITY,
            "targets": list(self.settings.targets),
            "rows": self.settings.rows,
            "works": self._folds["works"],
            # The demo's interpretations are what a version of its corpus says.
            "interpretations": stages.DEMO if self.settings.dataset == "demo" else None,
        }

    def report_params(self, changed: Params) -> Params:
        """Return what makes the report stale, besides the results that it shows.

        Parameters
        ----------
        changed : dict
            Settings that results depend on and that are not the default: the report lists them.
        """
        problems = [[r.recording_id, r.status, r.reason] for r in self.problems]
        return {
            "stage": stages.REPORT,
            "changed": changed,
            "problems": fingerprint({"rows": problems}),
        }


def _holds(manifest: Path, digest: str) -> bool:
    try:
        return bool(read_json(manifest)["digest"] == digest)
    except (StorageError, KeyError, TypeError):
        return False


def _target_sources(recordings: Iterable[Recording]) -> str:
    """Return a digest of what targets are measured from."""
    hashes = [[r.recording_id, r.audio_sha256, r.midi_sha256, r.beats_sha256] for r in recordings]
    return fingerprint({"recordings": hashes})


def _version(target: str) -> int:
    return 1 if target == DESCRIPTORS else TARGETS[target].version


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
