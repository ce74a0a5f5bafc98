"""Learn spaces of content and expression."""

from mess_core.workflow import jobs
from mess_core.workflow.script import job

with job(snakemake) as run:
    jobs.learn_geometry(run.layout, **run.cfg)
