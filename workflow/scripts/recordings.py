"""Write the recording table."""

from mess_core import jobs
from mess_core.snakejob import job

with job(snakemake) as settings:
    jobs.write_table(settings)
