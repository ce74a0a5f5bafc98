"""MESS: find music that sounds and is played alike.

The names here are those that most people need; everything else is in the package of its stage:
`datasets`, `extraction`, `targets`, `probing`, `artifacts`, `search`. Importing this package
imports nothing heavy: a name's module is loaded when the name is used.
"""

from mess_core._lazy import attach

__all__, __getattr__, __dir__ = attach(
    __name__,
    {
        "artifacts": [
            "build_index",
            "download_artifact_from_s3",
            "fetch",
            "load_artifact",
            "load_latest",
            "load_latest_from_s3",
            "load_published",
            "save_artifact",
            "upload_artifact_to_s3",
        ],
        "datasets": [
            "BaseDataset",
            "DatasetFactory",
            "MAESTRODataset",
            "SMDDataset",
            "render_midi",
            "render_midi_file",
            "resolve_midi_path",
        ],
        "errors": ["MessError"],
        "extraction": [
            "ExtractionPipeline",
            "FeatureExtractor",
            "MertSpec",
            "clear_gpu_cache",
            "estimate_extraction_time",
            "load_audio",
            "load_encoder",
            "segment_audio",
            "validate_audio_file",
        ],
        "layout": ["Layout"],
        "probing": [
            "ASPECT_REGISTRY",
            "LayerDiscoverySystem",
            "inspect_model",
            "resolve_aspects",
            "trace_activations",
        ],
        "recordings": ["Recording", "read_recordings"],
        "search": [
            "Query",
            "Searcher",
            "find_similar",
            "search_by_aspect",
            "search_by_aspects",
            "search_by_clip",
            "search_by_vector",
            "search_features",
        ],
        "targets": [
            "MidiExpressionTargets",
            "MusicalAspectTargets",
            "create_target_dataset",
            "validate_target_structure",
        ],
    },
)
