"""The workflow behind the Snakefile: configuration, plan, scripts and records."""
