"""Log probing results to MLflow."""

from mess_core import jobs
from mess_core.snakejob import job

with job(snakemake) as settings:
    jobs.track(settings)
