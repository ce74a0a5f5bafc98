"""Log probing results to MLflow."""

from mess_core.workflow import jobs
from mess_core.workflow.script import job

with job(snakemake) as run:
    jobs.track(run.layout, **run.cfg)
