"""Measure whether the targets measure what they say."""

from mess_core import jobs
from mess_core.snakejob import job

with job(snakemake) as settings:
    jobs.measure_validity(settings)
