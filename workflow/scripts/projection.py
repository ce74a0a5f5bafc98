"""Fit the projection from features to stored vectors."""

from mess_core import jobs
from mess_core.snakejob import job

with job(snakemake) as settings:
    jobs.fit_projection(settings)
