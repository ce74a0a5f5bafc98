"""MESS: recordings in, a published and searchable index out. One file per stage in workflow/rules.

The recording table (data/metadata/{dataset}.tsv) is the input; `mess recordings` writes it.
"""

from snakemake.utils import min_version

min_version("9.25")


configfile: "config/config.yaml"


include: "workflow/rules/common.smk"


report: "workflow/report/workflow.rst"


include: "workflow/rules/train.smk"
include: "workflow/rules/features.smk"
include: "workflow/rules/targets.smk"
include: "workflow/rules/alignments.smk"
include: "workflow/rules/probing.smk"
include: "workflow/rules/aspects.smk"
include: "workflow/rules/index.smk"
include: "workflow/rules/publish.smk"
include: "workflow/rules/report.smk"


rule all:
    default_target: True
    input:
        rules.all_features.input,
        rules.all_targets.input,
        rules.all_alignments.input,
        rules.probes.input,
        rules.answers.input,
        rules.indices.input,
        rules.pages.input,
        SETTINGS.layout.publish_receipt,


onsuccess:
    report_problems()


onerror:
    report_problems()
