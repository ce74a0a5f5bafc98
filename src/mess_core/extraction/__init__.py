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
            "stream_audio",
            "stream_windows",
            "validate_audio_file",
        ],
        "specs": ["MODELS", "MertSpec", "resolve_spec"],
        "bundled": ["make_demo_encoder"],
        "checkpoint": ["Checkpoint", "fetch_model", "find_checkpoint"],
        "devices": ["clear_gpu_cache"],
        "encoder": ["MertEncoder", "load_encoder"],
        "extractor": ["FeatureExtractor", "Features"],
        "estimate": ["Estimate", "estimate_extraction_time"],
        "summary": ["ExtractionSummary"],
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
