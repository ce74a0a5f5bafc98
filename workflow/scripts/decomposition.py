"""Decompose the rows of one layer."""

from mess_core.workflow import jobs
from mess_core.workflow.script import job

with job(snakemake) as settings:
    jobs.decompose_layer(settings, snakemake.wildcards.source, int(snakemake.wildcards.layer))
