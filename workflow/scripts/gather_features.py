"""Write the manifest of all features."""

from mess_core.workflow import jobs
from mess_core.workflow.script import job

with job(snakemake) as settings:
    jobs.gather_features(settings, variant=snakemake.params.cfg["variant"])
