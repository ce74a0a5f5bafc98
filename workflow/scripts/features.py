"""Extract the features of one shard."""

from mess_core.workflow import jobs
from mess_core.workflow.script import job

with job(snakemake) as settings:
    cfg = snakemake.params.cfg
    jobs.extract_shard(settings, cfg["shard"], variant=cfg["variant"], threads=snakemake.threads)
