"""Write the manifest of all features."""

from mess_core.workflow import jobs
from mess_core.workflow.script import job

with job(snakemake) as run:
    jobs.gather_features(run.layout, **run.cfg)
