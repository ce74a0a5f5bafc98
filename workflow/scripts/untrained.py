"""Make an untrained encoder of the same shape."""

from mess_core.workflow import jobs
from mess_core.workflow.script import job

with job(snakemake) as run:
    jobs.make_untrained(run.layout, **run.cfg)
