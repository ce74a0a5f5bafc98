from .artifact import (
    load_artifact as load_artifact,
    save_artifact as save_artifact,
    verify_artifact as verify_artifact,
)
from .fitting import fit_projection as fit_projection
from .index import (
    Index as Index,
    Row as Row,
    build_index as build_index,
    index_recordings as index_recordings,
)
from .projection import Projection as Projection
