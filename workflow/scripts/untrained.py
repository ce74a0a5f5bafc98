"""Write an untrained encoder of the same shape."""

from mess_core.workflow import jobs
from mess_core.workflow.script import job

with job(snakemake) as settings:
    jobs.make_untrained_twin(settings)
