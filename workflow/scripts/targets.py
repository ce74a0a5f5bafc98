"""Measure the proxy targets of one shard."""

from mess_core import jobs
from mess_core.snakejob import job

with job(snakemake) as settings:
    jobs.measure_shard(settings, snakemake.params.cfg["shard"])
