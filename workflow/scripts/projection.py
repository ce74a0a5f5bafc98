"""Fit the projection of one kind of index."""

from mess_core.workflow import jobs
from mess_core.workflow.script import job

with job(snakemake) as run:
    jobs.fit_projection(run.layout, **run.cfg)
