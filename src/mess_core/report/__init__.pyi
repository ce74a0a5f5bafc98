from .examples import choose_examples as choose_examples
from .page import render_pages as render_pages
from .validity import measure_validity as measure_validity
from .validity_picture import plot_validity as plot_validity
