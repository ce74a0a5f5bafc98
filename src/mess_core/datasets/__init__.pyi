from .base import (
    BaseDataset as BaseDataset,
    Source as Source,
    resolve_midi_path as resolve_midi_path,
)
from .corpora import MAESTRODataset as MAESTRODataset, SMDDataset as SMDDataset
from .demo import DemoDataset as DemoDataset, make_demo_corpus as make_demo_corpus
from .lookup import (
    DatasetFactory as DatasetFactory,
    FolderDataset as FolderDataset,
    TableDataset as TableDataset,
)
from .render import render_midi as render_midi, render_midi_file as render_midi_file
from .scan import ScanReport as ScanReport, scan_dataset as scan_dataset
