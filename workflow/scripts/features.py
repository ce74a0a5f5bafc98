"""Extract the features of one shard."""

from mess_core import jobs
from mess_core.snakejob import job

with job(snakemake) as settings:
    cfg = snakemake.params.cfg
    jobs.extract_shard(settings, cfg["shard"], variant=cfg["variant"], threads=snakemake.threads)
