"""Compare the performances of every work."""

from mess_core.workflow import jobs
from mess_core.workflow.script import job

with job(snakemake) as run:
    jobs.compare_performances(run.layout, **run.cfg)
