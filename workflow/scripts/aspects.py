"""Resolve the aspects to layers."""

from mess_core.workflow import jobs
from mess_core.workflow.script import job

with job(snakemake) as run:
    jobs.map_aspects(run.layout, **run.cfg)
