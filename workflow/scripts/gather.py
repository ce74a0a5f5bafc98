"""Write the manifest of all features or targets."""

from mess_core import jobs
from mess_core.snakejob import job

with job(snakemake) as settings:
    jobs.gather(settings, snakemake.params.cfg["kind"])
