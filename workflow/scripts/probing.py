"""Probe every layer for one target."""

from mess_core import jobs
from mess_core.snakejob import job

with job(snakemake) as settings:
    jobs.probe_target(settings, snakemake.wildcards.target)
