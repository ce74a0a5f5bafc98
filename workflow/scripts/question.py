"""Answer one research question."""

from mess_core.workflow import jobs
from mess_core.workflow.script import job

with job(snakemake) as run:
    jobs.answer_question(run.layout, **run.cfg)
