"""Write the manifests of targets."""

from mess_core import jobs
from mess_core.snakejob import job

with job(snakemake) as settings:
    jobs.gather_targets(settings)
