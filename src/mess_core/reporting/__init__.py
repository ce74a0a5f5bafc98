"""The report: what a finished run found, on one page for people."""

from mess_core._lazy import attach

__all__, __getattr__, __dir__ = attach(
    __name__,
    {
        "examples": ["choose_examples"],
        "page": ["render_pages"],
        "validity": ["measure_validity"],
        "validity_picture": ["plot_validity"],
    },
)
