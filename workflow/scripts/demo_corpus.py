"""Perform and render the demo corpus."""

from mess_core.workflow import jobs
from mess_core.workflow.script import job

with job(snakemake) as settings:
    jobs.make_demo(settings)
