"""Probe every layer for one target."""

from mess_core.workflow import jobs
from mess_core.workflow.script import job

with job(snakemake) as settings:
    jobs.probe_target(settings, snakemake.wildcards.target)
