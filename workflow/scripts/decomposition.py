"""Decompose the rows of one layer."""

from mess_core import jobs
from mess_core.snakejob import job

with job(snakemake) as settings:
    jobs.decompose_layer(settings, snakemake.wildcards.source, int(snakemake.wildcards.layer))
