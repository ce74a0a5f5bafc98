"""Extract the features of one shard."""

from mess_core.workflow import jobs
from mess_core.workflow.script import job

with job(snakemake) as run:
    jobs.extract_shard(
        run.layout,
        **run.cfg,
        device=run.config["device"],
        batch_size=run.config["batch_size"],
        threads=run.threads,
    )
