"""What each layer of the encoder knows: ridge probes, the aspect map, and a look inside a model."""

from mess_core._lazy import attach

__all__, __getattr__, __dir__ = attach(
    __name__,
    {
        "aspects": ["ASPECT_REGISTRY", "Aspect", "resolve_aspects", "save_aspects"],
        "charts": ["plot_collapse", "plot_separability", "plot_stability"],
        "discovery": ["LayerDiscoverySystem"],
        "erasure": ["Eraser", "fit_eraser"],
        "figures": ["plot_layer_map"],
        "geometry": ["layer_geometry", "linear_cka", "rankme", "within_work_share"],
        "inspection": ["inspect_model", "trace_activations"],
        "moments": ["FoldDecompositions", "decompose_folds"],
        "probe": ["probe_layers"],
        "results": ["confidence", "read_result", "read_results"],
        "ridge": ["ALPHAS", "RidgeDecomposition", "decompose"],
        "rows": ["ProbeRows", "deal_folds", "plan_rows"],
        "scores": ["LayerScore", "Mixture", "ProbeResult"],
        "separability": ["AspectProbe", "principal_angles", "separate_aspects"],
        "stability": ["Concordance", "kendall_w", "stability_table"],
        "tables": ["layer_table", "write_table"],
        "tracking": ["log_probing"],
    },
)
