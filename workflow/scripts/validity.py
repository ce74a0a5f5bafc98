"""Measure whether the targets measure what they say."""

from mess_core.workflow import jobs
from mess_core.workflow.script import job

with job(snakemake) as settings:
    jobs.measure_validity(settings)
