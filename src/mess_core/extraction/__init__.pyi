from .audio import (
    AudioInfo as AudioInfo,
    get_resampler as get_resampler,
    load_audio as load_audio,
    segment_audio as segment_audio,
    segment_starts as segment_starts,
    stream_audio as stream_audio,
    stream_windows as stream_windows,
    validate_audio_file as validate_audio_file,
)
from .checkpoint import (
    Checkpoint as Checkpoint,
    fetch_model as fetch_model,
    find_checkpoint as find_checkpoint,
    make_untrained as make_untrained,
)
from .encoder import (
    Encoder as Encoder,
    clear_gpu_cache as clear_gpu_cache,
    inspect_model as inspect_model,
    load_encoder as load_encoder,
    trace_activations as trace_activations,
)
from .extractor import (
    FeatureExtractor as FeatureExtractor,
    Features as Features,
    extract_passage as extract_passage,
)
from .pipeline import (
    Estimate as Estimate,
    ExtractionPipeline as ExtractionPipeline,
    ExtractionSummary as ExtractionSummary,
    estimate_extraction_time as estimate_extraction_time,
)
from .specs import MODELS as MODELS, EncoderSpec as EncoderSpec, resolve_spec as resolve_spec
from .storage import load_features as load_features, segment_times as segment_times
