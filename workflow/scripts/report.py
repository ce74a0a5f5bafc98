"""Write the report's pages."""

from mess_core.workflow import jobs
from mess_core.workflow.script import job

with job(snakemake) as settings:
    jobs.write_report(settings, snakemake.params.cfg["changed"])
