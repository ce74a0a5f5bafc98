"""Write the manifest of all features."""

from mess_core import jobs
from mess_core.snakejob import job

with job(snakemake) as settings:
    jobs.gather_features(settings, variant=snakemake.params.cfg["variant"])
