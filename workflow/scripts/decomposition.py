"""Decompose the rows of every layer of a source."""

from mess_core.workflow import jobs
from mess_core.workflow.script import job

with job(snakemake) as settings:
    jobs.decompose(settings, snakemake.wildcards.source)
