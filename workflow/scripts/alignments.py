"""Align the recordings of one shard's works."""

from mess_core.workflow import jobs
from mess_core.workflow.script import job

with job(snakemake) as run:
    jobs.align_shard(run.layout, **run.cfg)
