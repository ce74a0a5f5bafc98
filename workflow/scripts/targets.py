"""Measure the proxy targets of one shard."""

from mess_core.workflow import jobs
from mess_core.workflow.script import job

with job(snakemake) as run:
    jobs.measure_shard(run.layout, **run.cfg)
