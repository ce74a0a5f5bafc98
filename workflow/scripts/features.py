"""Extract the features of one shard."""

from mess_core import jobs
from mess_core.snakejob import job

with job(snakemake) as settings:
    jobs.extract_shard(settings, snakemake.params.cfg["shard"], threads=snakemake.threads)
