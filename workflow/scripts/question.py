"""Answer one research question."""

from mess_core import jobs
from mess_core.snakejob import job

with job(snakemake) as settings:
    jobs.answer_question(settings, snakemake.wildcards.question)
