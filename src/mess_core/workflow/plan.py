"""What the workflow needs to plan: shards, and the params that decide what is stale.

Staleness is content. Each rule has one params entry, a dict of builtins: the arguments that its
job is called with, and under ``stale_with`` what else decides whether it runs (the stage's number,
hashes of recordings and weights, never file times). Snakemake reruns a job when its params differ
from those that made its outputs.

The Snakefile is parsed by every cluster job too: this module imports nothing heavy, and reads only
the recording table, the manifests, people's judgments, and a local model folder (hashed once).
"""

__all__ = ["Plan"]

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mess_core import stages
from mess_core.errors import StorageError
from mess_core.extraction.specs import (
    DESCRIPTORS as DESCRIPTORS_ENCODER,
    MODELS,
    EncoderSpec,
    is_here,
    resolve_spec,
    where_to_get,
)
from mess_core.files import file_sha256, fingerprint, read_json, write_json
from mess_core.layout import DESCRIPTORS, ENCODER, UNTRAINED
from mess_core.probing.aspects import ASPECT_REGISTRY
from mess_core.recordings import Recording, by_work, judge, read_recordings, shard_of, usable
from mess_core.targets.registry import AUDIO, FROM_ALIGNMENT, TARGETS
from mess_core.workflow.config import Settings

Params = dict[str, Any]

_MODEL_FILES = (
    *("config.json", "preprocessor_config.json"),
    *("model.safetensors", "pytorch_model.bin"),
)


@dataclass(frozen=True)
class Plan:
    """Settings and recordings, and what follows from them.

    ``recordings`` are usable and at least one window long; ``problems`` are those that are not, or
    whose MIDI or beats cannot be used, each with a reason.
    """

    settings: Settings
    recordings: tuple[Recording, ...]
    problems: tuple[Recording, ...] = ()

    @classmethod
    def read(cls, settings: Settings) -> "Plan":
        """Read the recording table.

        Raises `DatasetError` if there is none, or it is malformed.
        """
        rows = judge(read_recordings(settings.layout.table), settings.window_s)
        return cls(settings, tuple(usable(rows)), tuple(row for row in rows if row.reason))

    @cached_property
    def shards(self) -> dict[str, list[Recording]]:
        """The recordings of every shard that has any."""
        members: dict[str, list[Recording]] = {}
        for recording in self.recordings:
            name = shard_of(recording.recording_id, self.settings.shards)
            members.setdefault(name, []).append(recording)
        return dict(sorted(members.items()))

    @cached_property
    def spec(self) -> EncoderSpec:
        """The encoder's facts, with the weights' hash for a local folder."""
        return resolve_spec(self.settings.encoder)

    @cached_property
    def specs(self) -> dict[str, EncoderSpec]:
        """The facts about the encoder of every source whose features are probed."""
        specs = {ENCODER: self.spec, UNTRAINED: self.spec, DESCRIPTORS: MODELS[DESCRIPTORS_ENCODER]}
        return {source: specs[source] for source in self.settings.sources}

    @cached_property
    def layers(self) -> dict[str, int]:
        """The number of layers of every source."""
        return {source: spec.layers for source, spec in self.specs.items()}

    # Features.

    def untrained_params(self) -> Params:
        """Return the params of the rule that makes the untrained encoder."""
        return {
            "stale_with": {"stage": stages.UNTRAINED, **self._weights},
            "encoder": self.settings.encoder,
            "folder": self.settings.of(UNTRAINED).encoder,
        }

    @cached_property
    def _weights(self) -> Params:
        spec = self.spec
        folder = Path(spec.location).expanduser() if spec.source == "folder" else None
        models = self.settings.layout.models
        weights = _folder_hash(folder, models) if folder else spec.weights_sha256
        if spec.kind != "mert":  # what it computes is said by code of ours, too
            weights = fingerprint({"weights": weights, "form": spec.fingerprint})
        return {"name": spec.name, "revision": spec.revision, "weights": weights}

    @cached_property
    def _audio(self) -> dict[str, str]:
        return {name: _hashes(rows, "audio_sha256") for name, rows in self.shards.items()}

    def missing_weights(self, source: str, shard: str) -> str:
        """Say, before anything runs, that the model that a shard's job will load is not here."""
        models = self.settings.layout.models
        if source == DESCRIPTORS or is_here(self.spec, models):
            return ""
        receipt = self.settings.layout.of(source).receipt("features", shard)
        done = _holds(receipt, "inputs", self.features_inputs[source][shard])
        return "" if done else where_to_get(self.spec, models)

    @cached_property
    def features_inputs(self) -> dict[str, dict[str, str]]:
        """A hash of all that the features of every source's shards depend on."""
        encoders: dict[str, Params] = {
            ENCODER: self._weights,
            UNTRAINED: {"stage": stages.UNTRAINED, **self._weights},
            DESCRIPTORS: {"fingerprint": MODELS[DESCRIPTORS_ENCODER].fingerprint},
        }
        return {
            source: {
                shard: fingerprint(
                    {
                        "stage": stages.FEATURES,
                        "precision": self.settings.of(source).precision,
                        "window_s": self.settings.window_s,
                        "overlap": self.settings.overlap,
                        "encoder": encoders[source],
                        "recordings": audio,
                    }
                )
                for shard, audio in self._audio.items()
            }
            for source in self.settings.sources
        }

    def features_params(self, source: str, shard: str) -> Params:
        """Return the params of a shard's extraction."""
        settings = self.settings.of(source)
        return {
            "inputs": self.features_inputs[source][shard],
            "source": source,
            "shard": shard,
            "shards": settings.shards,
            "encoder": settings.encoder,
            "precision": settings.precision,
            "window_s": settings.window_s,
            "overlap": settings.overlap,
            "raw_dtype": settings.raw_dtype if settings.save_raw else None,
        }

    def has_features(self, source: str) -> bool:
        """Whether the features that the last run gathered are those of this plan."""
        manifest = self.settings.layout.of(source).features_manifest
        return _holds(manifest, "shards", self.features_inputs[source])

    def gather_features_params(self, source: str) -> Params:
        """Return the params of the rule that writes the manifest of all features."""
        return {"source": source, "shards": self.features_inputs[source]}

    # Targets.

    @cached_property
    def _sources(self) -> dict[str, str]:
        parts = ("audio_sha256", "midi_sha256", "beats_sha256")
        return {name: _hashes(rows, *parts) for name, rows in self.shards.items()}

    @cached_property
    def target_inputs(self) -> dict[str, dict[str, str]]:
        """A hash of all that a target depends on, by target and shard."""
        settings = self.settings
        return {
            name: {
                shard: fingerprint(
                    {
                        "stage": stages.TARGETS,
                        "target": [name, TARGETS[name].version],
                        "window_s": settings.window_s,
                        "overlap": settings.overlap,
                        "recordings": sources,
                    }
                )
                for shard, sources in self._sources.items()
            }
            for name in TARGETS
            if not TARGETS[name].aligned
        }

    def targets_params(self, shard: str) -> Params:
        """Return the params of a shard's measuring: of all targets, whether probed or not."""
        return {
            "inputs": {name: inputs[shard] for name, inputs in self.target_inputs.items()},
            **self._of_shard(shard),
        }

    def _of_shard(self, shard: str) -> Params:
        return {
            "shard": shard,
            "shards": self.settings.shards,
            "window_s": self.settings.window_s,
            "overlap": self.settings.overlap,
        }

    @cached_property
    def ungathered(self) -> tuple[str, ...]:
        """The targets to probe whose manifest is not that of this plan."""
        return tuple(name for name in self.settings.targets if not self._is_gathered(name))

    def _is_gathered(self, name: str) -> bool:
        manifest = self.settings.layout.target_manifest(name)
        return _holds(manifest, "shards", self.target_inputs.get(name, {})) and (
            name not in FROM_ALIGNMENT or _holds(manifest, "alignments", self.alignment_inputs)
        )

    @cached_property
    def waits_for_alignments(self) -> bool:
        """Whether targets are ungathered that depend on alignments."""
        return not set(FROM_ALIGNMENT).isdisjoint(self.ungathered)

    def gather_targets_params(self) -> Params:
        """Return the params of the rule that writes the targets' manifests."""
        return {
            "targets": {name: self.target_inputs.get(name, {}) for name in self.ungathered},
            "alignments": self.alignment_inputs if self.waits_for_alignments else {},
        }

    # Alignments.

    @cached_property
    def works(self) -> dict[str, list[Recording]]:
        """The recordings of every shard of works, of works that have at least two."""
        shards: dict[str, list[Recording]] = {}
        for work_id, recordings in by_work(self.recordings).items():
            shards.setdefault(shard_of(work_id, self.settings.shards), []).extend(recordings)
        return dict(sorted(shards.items()))

    @cached_property
    def alignment_inputs(self) -> dict[str, str]:
        """A hash of all that alignments, and the targets from them, depend on, by shard."""
        parts = ("work_id", "audio_sha256", "midi_sha256", "beats_sha256")
        facts = {
            "stages": [stages.ALIGNMENTS, stages.TARGETS],
            "targets": [[name, TARGETS[name].version] for name in FROM_ALIGNMENT],
            "window_s": self.settings.window_s,
            "overlap": self.settings.overlap,
        }
        return {
            shard: fingerprint({**facts, "recordings": _hashes(recordings, *parts)})
            for shard, recordings in self.works.items()
        }

    def alignments_params(self, shard: str) -> Params:
        """Return the params of the alignment of a shard of works."""
        return {"inputs": self.alignment_inputs[shard], **self._of_shard(shard)}

    @cached_property
    def has_alignments(self) -> bool:
        """Whether the alignments that the last run gathered are those of this plan."""
        manifest = self.settings.layout.alignments_manifest
        return _holds(manifest, "shards", self.alignment_inputs)

    def gather_alignments_params(self) -> Params:
        """Return the params of the rule that writes the manifest of all alignments."""
        return {"shards": self.alignment_inputs}

    def performances_params(self) -> Params:
        """Return the params of the comparison of performances."""
        players = {r.recording_id: [r.work_id, r.performer] for r in self.recordings}
        return {"stale_with": {"stage": stages.PERFORMANCES, "players": fingerprint(players)}}

    # Probing and what follows.

    @cached_property
    def _works(self) -> str:
        return fingerprint({r.recording_id: r.work_id for r in self.recordings})

    @cached_property
    def _rows(self) -> Params:
        return {
            "window_s": self.settings.window_s,
            "unit": self.settings.rows,
            "n_folds": self.settings.n_folds,
        }

    def decomposition_params(self, source: str) -> Params:
        """Return the params of the decompositions of all layers of a source."""
        return {
            "stale_with": {"stage": stages.DECOMPOSITION, "works": self._works},
            "source": source,
            "layers": self.layers[source],
            **self._rows,
        }

    @cached_property
    def _probing(self) -> Params:
        return {"layers": self.layers, "alphas": list(self.settings.alphas), **self._rows}

    def probing_params(self, target: str) -> Params:
        """Return the params of one target's probe."""
        stale_with = {"stage": stages.PROBING, "works": self._works}
        return {"stale_with": stale_with, "target": target, **self._probing}

    @cached_property
    def aspect_targets(self) -> tuple[str, ...]:
        """The targets that are probed and serve an aspect; others change no aspect."""
        used = {target for aspect in ASPECT_REGISTRY.values() for target in aspect.measures}
        return tuple(target for target in self.settings.targets if target in used)

    def aspects_params(self) -> Params:
        """Return the params of the aspect map."""
        registry = {
            a.name: [*map(list, (a.targets, a.midi, a.aligned)), a.more]
            for a in ASPECT_REGISTRY.values()
        }
        return {
            "stale_with": {"stage": stages.ASPECTS, "works": self._works, "aspects": registry},
            "min_r2": self.settings.min_r2,
            "source": self.settings.source,
            "targets": list(self.aspect_targets),
            **self._probing,
        }

    def question_targets(self, question: str) -> tuple[str, ...]:
        """Return the targets whose probing results answer one of `layout.QUESTIONS`."""
        if question == "collapse":
            return ()
        return self.aspect_targets if question == "separability" else self.settings.targets

    def question_params(self, question: str) -> Params:
        """Return the params of an answer."""
        return {
            "stale_with": {"stage": stages.QUESTIONS, "works": self._works},
            "question": question,
            "targets": list(self.question_targets(question)),
            **self._probing,
        }

    def training_params(self) -> Params:
        """Return the params of training a small encoder."""
        return {
            "stale_with": {"stage": stages.TRAINING},
            "performances": self.settings.train_performances,
            "pianos": self.settings.train_pianos,
            "seconds": self.settings.train_seconds,
        }

    def tracking_params(self) -> Params:
        """Return the params of logging to MLflow."""
        return {
            "uri": self.settings.tracking_uri,
            "experiment": self.settings.tracking_experiment,
            "targets": list(self.settings.targets),
        }

    def geometry_params(self) -> Params:
        """Return the params of learning a geometry."""
        parts = ("work_id", "performer", "beats_sha256")
        return {
            "stale_with": {
                "stage": stages.GEOMETRY,
                "rows": _hashes(self.recordings, *parts),
                "judgments": self._judgments("overall", "clip"),
            },
            "targets": list(self.aspect_targets),
            "window_s": self.settings.window_s,
            "overlap": self.settings.overlap,
            "varied": bool(self.varied),
        }

    def _judgments(self, *words: str) -> dict[str, str]:
        """Return hashes of files that name a recording and one of any words, or cannot be read."""
        names, found = {r.recording_id for r in self.recordings}, {}
        for path in self.settings.layout.judgment_files:
            try:
                said = set(re.split(r'[",\r\n]', path.read_text("utf-8-sig", errors="replace")))
                if not (said.isdisjoint(names) or (words and said.isdisjoint(words))):
                    found[path.name] = file_sha256(path)
            except OSError as error:
                found[path.name] = str(error)
        return found

    def projection_params(self, kind: str) -> Params:
        """Return the params of the projection of one kind of index."""
        return {
            "stale_with": {"stage": stages.PROJECTION, "works": self._works},
            "kind": kind,
            "targets": list(self.aspect_targets),
            "learned": self.settings.learn,
            **self._probing,
        }

    def index_params(self, kind: str) -> Params:
        """Return the params of one kind of index."""
        settings = self.settings
        identity = [
            [r.recording_id, r.work_id, r.performer, r.composer, r.title, r.split, r.duration_s]
            for r in self.recordings
        ]
        return {
            "stale_with": {"stage": stages.INDEX, "rows": fingerprint({"rows": identity})},
            "kind": kind,
            "encoder": settings.encoder,
            "window_s": settings.window_s,
            "overlap": settings.overlap,
            "exact_up_to": settings.exact_up_to,
            "memory_gb": settings.memory_gb,
        }

    def publish_params(self) -> Params:
        """Return the params of the publication."""
        return {"stale_with": {"stage": stages.PUBLISH}, "destination": self.settings.destination}

    def validity_params(self) -> Params:
        """Return the params of the validity of the targets."""
        demo = self.settings.dataset == "demo"
        return {
            # The demo's interpretations are what a version of its corpus says.
            "stale_with": {
                "stage": stages.VALIDITY,
                "works": self._works,
                "demo": stages.DEMO if demo else None,
            },
            "targets": list(self.settings.targets),
            "window_s": self.settings.window_s,
            "unit": self.settings.rows,
        }

    def evaluation_params(self) -> Params:
        """Return the params of how good the answers of the index of clips are."""
        beats = fingerprint({r.recording_id: r.beats_sha256 for r in self.recordings})
        judgments = self._judgments()
        return {
            "stale_with": {"stage": stages.EVALUATION, "beats": beats, "judgments": judgments},
            "window_s": self.settings.window_s,
            "baselines": list(self.settings.sources[1:]),
            "varied": bool(self.varied),
            "learned": self.settings.learn,
        }

    @cached_property
    def varied(self) -> list[Recording]:
        """What counterfactuals are made of, if they or the model are here: one of a work.

        Which they are depends on nothing but the hashes of all MIDI.
        """
        works: dict[str, Recording] = {}
        for recording in sorted(self.recordings, key=lambda each: each.midi_sha256):
            if recording.midi:
                works.setdefault(recording.work_id or recording.recording_id, recording)
        layout = self.settings.layout
        here = is_here(self.spec, layout.models) or layout.counterfactuals.is_file()
        return list(works.values())[: self.settings.counterfactuals if here else 0]

    def counterfactuals_params(self) -> Params:
        """Return the params of counterfactuals."""
        audio = {name: spec.version for name, spec in TARGETS.items() if spec.source == AUDIO}
        return {
            "stale_with": {
                "stages": [stages.COUNTERFACTUALS, stages.FEATURES, stages.TARGETS],
                "targets": fingerprint(audio),
                "encoders": [self._weights, MODELS[DESCRIPTORS_ENCODER].fingerprint],
                "recordings": _hashes(self.varied, "work_id", "midi_sha256", "beats_sha256"),
            },
            "recordings": [recording.recording_id for recording in self.varied],
            "encoder": self.settings.encoder,
            "precision": self.settings.precision,
            "window_s": self.settings.window_s,
        }

    def report_params(self, changed: Params) -> Params:
        """Return the params of the report, which lists ``changed``, as `Settings.changed` is."""
        problems = [[r.recording_id, r.status, r.reason] for r in self.problems]
        return {
            "stale_with": {"stage": stages.REPORT, "problems": fingerprint({"rows": problems})},
            "window_s": self.settings.window_s,
            "changed": changed,
        }


def _holds(path: Path, key: str, planned: dict[str, str] | str) -> bool:
    """Say whether what a job left is as planned, and nothing failed that may go well next time."""
    try:
        content = read_json(path)
        return bool(content[key] == planned and not content.get("failed"))
    except (StorageError, KeyError, TypeError):
        return False


def _hashes(recordings: Iterable[Recording], *parts: str) -> str:
    return fingerprint({r.recording_id: [getattr(r, part) for part in parts] for r in recordings})


def _folder_hash(folder: Path, models: Path) -> str:
    """Return the hash of a model folder's files, reading a file again only when it changed."""
    known_path = models / "hashes.json"
    try:
        known: dict[str, Any] = read_json(known_path)
    except StorageError:
        known = {}
    facts = {}
    for path in filter(Path.is_file, (folder / name for name in _MODEL_FILES)):
        stamp, key = [path.stat().st_size, path.stat().st_mtime_ns], str(path.resolve())
        if known.get(key, [None])[0] != stamp:
            known[key] = [stamp, file_sha256(path)]
            write_json(known_path, known)
        facts[path.name] = known[key][1]
    return fingerprint(facts)
