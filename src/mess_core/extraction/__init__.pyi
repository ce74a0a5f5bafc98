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
from .bundled import make_demo_encoder as make_demo_encoder
from .checkpoint import (
    Checkpoint as Checkpoint,
    fetch_model as fetch_model,
    find_checkpoint as find_checkpoint,
)
from .devices import clear_gpu_cache as clear_gpu_cache
from .encoder import MertEncoder as MertEncoder, load_encoder as load_encoder
from .estimate import Estimate as Estimate, estimate_extraction_time as estimate_extraction_time
from .extractor import FeatureExtractor as FeatureExtractor, Features as Features
from .pipeline import ExtractionPipeline as ExtractionPipeline
from .specs import MODELS as MODELS, MertSpec as MertSpec, resolve_spec as resolve_spec
from .storage import (
    features_exist as features_exist,
    features_exist_for_types as features_exist_for_types,
    load_features as load_features,
    load_selected_features as load_selected_features,
    save_features as save_features,
    segment_times as segment_times,
)
from .summary import ExtractionSummary as ExtractionSummary
