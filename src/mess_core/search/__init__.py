"""Search: which other recordings or passages sound like this one, and in what respect."""

from mess_core._lazy import attach

__all__, __getattr__, __dir__ = attach(
    __name__,
    {
        "features": ["load_features"],
        "fitting": ["fit_projection"],
        "projection": ["Projection"],
        "query": ["Query"],
        "searcher": ["Searcher"],
        "searching": ["Answer", "Hit", "search", "search_features"],
        "queries": [
            "find_similar",
            "search_by_aspect",
            "search_by_aspects",
            "search_by_clip",
            "search_by_vector",
        ],
    },
)
