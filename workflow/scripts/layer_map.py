"""Draw what every layer knows."""

from mess_core import jobs
from mess_core.snakejob import job

with job(snakemake) as settings:
    jobs.draw_layer_map(settings)
