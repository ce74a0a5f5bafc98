"""Decompose the layers of one source."""

from mess_core.workflow import jobs
from mess_core.workflow.script import job

with job(snakemake) as run:
    jobs.decompose(run.layout, **run.cfg)
