from .align import align_work as align_work
from .compare import describe as describe, stretch as stretch
from .curves import WorkCurves as WorkCurves, relative as relative, work_curves as work_curves
from .maps import Alignment as Alignment, WorkAlignment as WorkAlignment, read_work as read_work
