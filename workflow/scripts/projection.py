"""Fit what makes the stored vectors of one kind of index."""

from mess_core.workflow import jobs
from mess_core.workflow.script import job

with job(snakemake) as settings:
    jobs.fit_projection(settings, snakemake.wildcards.kind)
