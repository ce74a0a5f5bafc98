from .datasets import (
    BaseDataset as BaseDataset,
    DatasetFactory as DatasetFactory,
    MAESTRODataset as MAESTRODataset,
    SMDDataset as SMDDataset,
    render_midi as render_midi,
    render_midi_file as render_midi_file,
    resolve_midi_path as resolve_midi_path,
)
from .errors import MessError as MessError
from .extraction import (
    EncoderSpec as EncoderSpec,
    ExtractionPipeline as ExtractionPipeline,
    FeatureExtractor as FeatureExtractor,
    clear_gpu_cache as clear_gpu_cache,
    estimate_extraction_time as estimate_extraction_time,
    inspect_model as inspect_model,
    load_audio as load_audio,
    load_encoder as load_encoder,
    segment_audio as segment_audio,
    trace_activations as trace_activations,
    validate_audio_file as validate_audio_file,
)
from .index import (
    build_index as build_index,
    load_artifact as load_artifact,
    save_artifact as save_artifact,
)
from .layout import Layout as Layout
from .probing import (
    ASPECT_REGISTRY as ASPECT_REGISTRY,
    LayerDiscoverySystem as LayerDiscoverySystem,
    resolve_aspects as resolve_aspects,
)
from .publishing import (
    download_artifact_from_s3 as download_artifact_from_s3,
    load_latest as load_latest,
    load_latest_from_s3 as load_latest_from_s3,
    load_published as load_published,
    upload_artifact_to_s3 as upload_artifact_to_s3,
)
from .publishing.fetch import fetch as fetch
from .recordings import Recording as Recording, read_recordings as read_recordings
from .search import (
    Query as Query,
    Searcher as Searcher,
    find_similar as find_similar,
    search_by_aspect as search_by_aspect,
    search_by_aspects as search_by_aspects,
    search_by_clip as search_by_clip,
    search_by_vector as search_by_vector,
    search_features as search_features,
)
from .targets import (
    MidiExpressionTargets as MidiExpressionTargets,
    MusicalAspectTargets as MusicalAspectTargets,
    create_target_dataset as create_target_dataset,
    validate_target_structure as validate_target_structure,
)
