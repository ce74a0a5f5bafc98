# For people: whether targets measure what they say, and pages that need nothing but themselves.
rule validity:
    input:
        target_manifests(),
        ancient(demo_truth()),
    output:
        table=report(
            SETTINGS.layout.answer("validity", ".tsv"),
            caption="../report/validity.rst",
            category="Targets",
            labels={"result": "validity", "form": "table"},
        ),
        picture=report(
            SETTINGS.layout.answer("validity", ".png"),
            caption="../report/validity.rst",
            category="Targets",
            labels={"result": "validity", "form": "picture"},
        ),
    log:
        log_file("validity"),
    benchmark:
        benchmark_file("validity")
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=more_memory(2000),
        runtime=more_time(60),
    params:
        cfg=PLAN.validity_params(),
    message:
        "Measuring the validity of the targets"
    script:
        "../scripts/validity.py"


rule performances:
    input:
        SETTINGS.layout.alignments_manifest,
    output:
        table=report(
            SETTINGS.layout.answer("performances", ".tsv"),
            caption="../report/performances.rst",
            category="Performances",
            labels={"result": "performances", "form": "table"},
        ),
        picture=report(
            SETTINGS.layout.answer("performances", ".png"),
            caption="../report/performances.rst",
            category="Performances",
            labels={"result": "performances", "form": "picture"},
        ),
    log:
        log_file("performances"),
    benchmark:
        benchmark_file("performances")
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=more_memory(2000),
        runtime=more_time(30),
    params:
        cfg=PLAN.performances_params(),
    message:
        "Comparing the performances of every work"
    script:
        "../scripts/performances.py"


rule evaluation:
    input:
        index=SETTINGS.layout.index_receipt("clips"),
        features=features_manifests(),
        targets=target_manifests(),
        counterfactuals=counterfactuals(),
        geometry=geometry(),
    output:
        table=report(
            SETTINGS.layout.answer("evaluation", ".tsv"),
            caption="../report/evaluation.rst",
            category="Retrieval",
            labels={"result": "evaluation", "form": "table"},
        ),
        picture=report(
            SETTINGS.layout.answer("evaluation", ".png"),
            caption="../report/evaluation.rst",
            category="Retrieval",
            labels={"result": "evaluation", "form": "picture"},
        ),
    log:
        log_file("evaluation"),
    benchmark:
        benchmark_file("evaluation")
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=more_memory(4000),
        runtime=more_time(60),
    params:
        cfg=PLAN.evaluation_params(),
    message:
        "Judging how good answers are"
    script:
        "../scripts/evaluation.py"


rule report:
    input:
        aspects=SETTINGS.layout.aspects,
        answers=answers(),
        indices=index_receipts(),
    output:
        page=report(
            SETTINGS.layout.page("report"),
            caption="../report/page.rst",
            category="Overview",
            labels={"result": "everything on one page", "form": "page"},
        ),
        aspects=report(
            SETTINGS.layout.page("aspects"),
            caption="../report/aspects.rst",
            category="Aspects",
            labels={"result": "aspects and their layers", "form": "page"},
        ),
        examples=report(
            SETTINGS.layout.page("examples"),
            caption="../report/examples.rst",
            category="Retrieval",
            labels={"result": "examples to hear", "form": "page"},
        ),
        facts=report(
            SETTINGS.layout.page("facts"),
            caption="../report/facts.rst",
            category="Index and run",
            labels={"result": "index and run", "form": "page"},
        ),
    log:
        log_file("report"),
    benchmark:
        benchmark_file("report")
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=more_memory(4000),
        runtime=more_time(30),
    params:
        cfg=PLAN.report_params(SETTINGS.changed),
    message:
        "Writing the report"
    script:
        "../scripts/report.py"


rule pages:
    input:
        strings(map(SETTINGS.layout.page, PAGES)),
