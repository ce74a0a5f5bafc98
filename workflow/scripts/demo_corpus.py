"""Perform and render the demo corpus."""

from mess_core import jobs
from mess_core.snakejob import job

with job(snakemake) as settings:
    jobs.make_demo(settings)
