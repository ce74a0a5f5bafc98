"""Publish the current artifacts."""

from mess_core.workflow import jobs
from mess_core.workflow.script import job

with job(snakemake) as settings:
    jobs.publish_indices(settings)
