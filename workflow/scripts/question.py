"""Answer one research question."""

from mess_core.workflow import jobs
from mess_core.workflow.script import job

with job(snakemake) as settings:
    jobs.answer_question(settings, snakemake.wildcards.question)
