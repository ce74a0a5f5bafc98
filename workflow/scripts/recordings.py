"""Write the recording table."""

from mess_core.workflow import jobs
from mess_core.workflow.script import job

with job(snakemake) as settings:
    jobs.write_table(settings)
