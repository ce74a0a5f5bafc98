"""Build the index of one kind."""

from mess_core.workflow import jobs
from mess_core.workflow.script import job

with job(snakemake) as run:
    jobs.build_index(run.layout, **run.cfg)
