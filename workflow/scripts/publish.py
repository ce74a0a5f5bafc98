"""Publish the current artifacts."""

from mess_core import jobs
from mess_core.snakejob import job

with job(snakemake) as settings:
    jobs.publish_indices(settings)
