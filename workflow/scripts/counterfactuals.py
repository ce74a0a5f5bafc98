"""Play the same notes otherwise, and extract what sounds."""

from mess_core.workflow import jobs
from mess_core.workflow.script import job

with job(snakemake) as run:
    jobs.make_counterfactuals(
        run.layout,
        **run.cfg,
        device=run.config["device"],
        batch_size=run.config["batch_size"],
        threads=run.threads,
    )
