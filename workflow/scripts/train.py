"""Train a small encoder of piano music."""

from mess_core.workflow import jobs
from mess_core.workflow.script import job

with job(snakemake) as run:
    jobs.train(run.layout, threads=run.threads, **run.cfg)
