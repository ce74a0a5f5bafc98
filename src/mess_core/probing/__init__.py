"""What each layer of the encoder knows: ridge probes, the aspect map, and a look inside a model."""

from mess_core._lazy import attach

__all__, __getattr__, __dir__ = attach(
    __name__,
    {
        "aspects": ["ASPECT_REGISTRY", "Aspect", "resolve_aspects", "save_aspects"],
        "discovery": ["LayerDiscoverySystem"],
        "figures": ["plot_layer_map"],
        "inspection": ["inspect_model", "trace_activations"],
        "probe": ["LayerScore", "ProbeResult", "deal_folds", "probe_layers"],
        "results": ["confidence", "read_result", "read_results"],
        "ridge": ["ALPHAS", "RidgeDecomposition", "decompose"],
    },
)
