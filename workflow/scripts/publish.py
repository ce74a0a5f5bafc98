"""Publish the indices."""

from mess_core.workflow import jobs
from mess_core.workflow.script import job

with job(snakemake) as run:
    jobs.publish_indices(run.layout, **run.cfg)
