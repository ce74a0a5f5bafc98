from .aspects import (
    ASPECT_REGISTRY as ASPECT_REGISTRY,
    Aspect as Aspect,
    resolve_aspects as resolve_aspects,
    save_aspects as save_aspects,
)
from .decompositions import (
    ALPHAS as ALPHAS,
    FoldDecompositions as FoldDecompositions,
    RidgeDecomposition as RidgeDecomposition,
    decompose as decompose,
    decompose_folds as decompose_folds,
)
from .discovery import LayerDiscoverySystem as LayerDiscoverySystem
from .folds import ProbeRows as ProbeRows, deal_folds as deal_folds, plan_rows as plan_rows
from .pictures import (
    plot_collapse as plot_collapse,
    plot_layer_map as plot_layer_map,
    plot_separability as plot_separability,
    plot_stability as plot_stability,
)
from .probe import probe_layers as probe_layers
from .questions import (
    kendall_w as kendall_w,
    layer_geometry as layer_geometry,
    layer_table as layer_table,
    linear_cka as linear_cka,
    rankme as rankme,
    stability_table as stability_table,
    write_table as write_table,
)
from .results import (
    confidence as confidence,
    log_probing as log_probing,
    read_result as read_result,
    read_results as read_results,
)
from .scores import LayerScore as LayerScore, Mixture as Mixture, ProbeResult as ProbeResult
from .separability import (
    AspectProbe as AspectProbe,
    principal_angles as principal_angles,
    separate_aspects as separate_aspects,
)
