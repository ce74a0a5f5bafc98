"""Write the manifests of targets."""

from mess_core.workflow import jobs
from mess_core.workflow.script import job

with job(snakemake) as settings:
    jobs.gather_targets(settings)
