"""Write the report."""

from mess_core.workflow import jobs
from mess_core.workflow.script import job

with job(snakemake) as run:
    jobs.write_report(run.layout, **run.cfg)
