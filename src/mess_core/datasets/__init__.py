"""Datasets: which recordings there are, and scanning them into the recording table."""

from mess_core._lazy import attach

__all__, __getattr__, __dir__ = attach(
    __name__,
    {
        "base": ["BaseDataset", "Source", "resolve_midi_path"],
        "demo.corpus": ["make_demo_corpus"],
        "demo.dataset": ["DemoDataset"],
        "factory": ["DatasetFactory"],
        "folder": ["FolderDataset", "TableDataset"],
        "maestro": ["MAESTRODataset"],
        "rendering": ["render_midi", "render_midi_file"],
        "scan": ["ScanReport", "scan_dataset"],
        "smd": ["SMDDataset"],
    },
)
