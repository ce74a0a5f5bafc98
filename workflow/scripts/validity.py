"""Measure the validity of the targets."""

from mess_core.workflow import jobs
from mess_core.workflow.script import job

with job(snakemake) as run:
    jobs.measure_validity(run.layout, **run.cfg)
