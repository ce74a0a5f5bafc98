"""MESS: recordings in, a published and searchable index out. One file per stage in workflow/rules."""

from snakemake.utils import min_version

min_version("9.25")


configfile: "config/config.yaml"


include: "workflow/rules/common.smk"


report: "workflow/report/workflow.rst"


SETTINGS = read_settings()
ASKED = asked_for()
PLAN = read_plan()
STAMP = table_stamp()
CHANGED = SETTINGS.changed


include: "workflow/rules/recordings.smk"


if PLAN is not None:

    include: "workflow/rules/features.smk"
    include: "workflow/rules/targets.smk"
    include: "workflow/rules/probing.smk"
    include: "workflow/rules/aspects.smk"
    include: "workflow/rules/index.smk"
    include: "workflow/rules/publish.smk"
    include: "workflow/rules/report.smk"

    # What can be asked for by one name: `snakemake features`, `snakemake indices`.
    for name, files in collections().items():

        rule:
            name:
                name
            input:
                files,


rule all:
    default_target: True
    input:
        SETTINGS.layout.table
        if PLAN is None
        else [
            SETTINGS.layout.publish_receipt,
            # What is in between too, so that what was deleted comes back.
            *results(),
        ],


refuse_unknown(ASKED)


onsuccess:
    if not continue_with_new_table():
        report_problems()


onerror:
    report_problems()
