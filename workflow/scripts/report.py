"""Write the report's pages."""

from mess_core import jobs
from mess_core.snakejob import job

with job(snakemake) as settings:
    jobs.write_report(settings, snakemake.params.cfg["changed"])
