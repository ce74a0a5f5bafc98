"""Resolve aspects to layers."""

from mess_core import jobs
from mess_core.snakejob import job

with job(snakemake) as settings:
    jobs.map_aspects(settings)
