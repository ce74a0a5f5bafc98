"""Build the index artifact of one kind."""

from mess_core.workflow import jobs
from mess_core.workflow.script import job

with job(snakemake) as settings:
    jobs.build_indices(settings, snakemake.wildcards.kind)
