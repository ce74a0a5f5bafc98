"""Write the manifests of targets."""

from mess_core.workflow import jobs
from mess_core.workflow.script import job

with job(snakemake) as run:
    jobs.gather_targets(run.layout, **run.cfg)
