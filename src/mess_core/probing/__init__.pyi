from .aspects import (
    ASPECT_REGISTRY as ASPECT_REGISTRY,
    Aspect as Aspect,
    resolve_aspects as resolve_aspects,
    save_aspects as save_aspects,
)
from .charts import (
    plot_collapse as plot_collapse,
    plot_separability as plot_separability,
    plot_stability as plot_stability,
)
from .decompositions import (
    FoldDecompositions as FoldDecompositions,
    decompose_folds as decompose_folds,
)
from .discovery import LayerDiscoverySystem as LayerDiscoverySystem
from .erasure import Eraser as Eraser, fit_eraser as fit_eraser
from .figures import plot_layer_map as plot_layer_map
from .folds import ProbeRows as ProbeRows, deal_folds as deal_folds, plan_rows as plan_rows
from .geometry import (
    layer_geometry as layer_geometry,
    linear_cka as linear_cka,
    rankme as rankme,
    within_work_share as within_work_share,
)
from .inspection import inspect_model as inspect_model, trace_activations as trace_activations
from .probe import probe_layers as probe_layers
from .results import (
    confidence as confidence,
    read_result as read_result,
    read_results as read_results,
)
from .ridge import (
    ALPHAS as ALPHAS,
    RidgeDecomposition as RidgeDecomposition,
    decompose as decompose,
)
from .scores import LayerScore as LayerScore, Mixture as Mixture, ProbeResult as ProbeResult
from .separability import (
    AspectProbe as AspectProbe,
    principal_angles as principal_angles,
    separate_aspects as separate_aspects,
)
from .stability import (
    Concordance as Concordance,
    kendall_w as kendall_w,
    stability_table as stability_table,
)
from .tables import layer_table as layer_table, write_table as write_table
from .tracking import log_probing as log_probing
