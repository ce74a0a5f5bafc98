"""Build the index artifact of one kind."""

from mess_core import jobs
from mess_core.snakejob import job

with job(snakemake) as settings:
    jobs.fit_projection(settings, snakemake.wildcards.kind)
