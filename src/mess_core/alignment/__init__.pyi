from .maps import Alignment as Alignment, WorkAlignment as WorkAlignment, read_work as read_work
