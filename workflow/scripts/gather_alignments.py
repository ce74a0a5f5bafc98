"""Write the manifest of all alignments."""

from mess_core.workflow import jobs
from mess_core.workflow.script import job

with job(snakemake) as run:
    jobs.gather_alignments(run.layout, **run.cfg)
