"""Probe all layers for one target."""

from mess_core.workflow import jobs
from mess_core.workflow.script import job

with job(snakemake) as run:
    jobs.probe_target(run.layout, **run.cfg)
