"""Resolve aspects to layers."""

from mess_core.workflow import jobs
from mess_core.workflow.script import job

with job(snakemake) as settings:
    jobs.map_aspects(settings)
