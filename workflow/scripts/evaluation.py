"""Judge how good the answers of the index are."""

from mess_core.workflow import jobs
from mess_core.workflow.script import job

with job(snakemake) as run:
    jobs.evaluate(run.layout, **run.cfg)
