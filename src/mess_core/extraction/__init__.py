"""Audio in, MERT features out: decoding, windows, the encoder, storage and the pipeline."""

from mess_core._lazy import attach

__all__, __getattr__, __dir__ = attach(
    __name__,
    {
        "audio": [
            "AudioInfo",
            "get_resampler",
            "load_audio",
            "segment_audio",
            "segment_starts",
            "validate_audio_file",
        ],
        "specs": ["MODELS", "MertSpec", "resolve_spec"],
        "bundled": ["make_demo_encoder"],
        "encoder": ["MertEncoder", "load_encoder"],
        "extractor": ["FeatureExtractor", "Features"],
        "pipeline": ["ExtractionPipeline"],
        "storage": [
            "features_exist",
            "features_exist_for_types",
            "load_features",
            "load_selected_features",
            "save_features",
            "segment_times",
        ],
    },
)
