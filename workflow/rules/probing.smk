# What depends on the features alone, once for all targets: a new target decomposes nothing again.
rule decomposition:
    input:
        features_manifests(),
    output:
        SETTINGS.layout.decomposition_receipt("{source}"),
    log:
        log_file("decomposition", "{source}"),
    benchmark:
        benchmark_file("decomposition", "{source}")
    wildcard_constraints:
        source=any_of(SETTINGS.sources),
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=more_memory(4000),
        runtime=more_time(30),
    params:
        cfg=decomposition_params,
    message:
        f"Decomposing the layers of {{wildcards.source}}: {amount()}"
    script:
        "../scripts/decomposition.py"


rule probing:
    input:
        target=SETTINGS.layout.target_manifest("{target}"),
        layers=decompositions(),
    output:
        SETTINGS.layout.probe("{target}"),
    log:
        log_file("probing", "{target}"),
    benchmark:
        benchmark_file("probing", "{target}")
    wildcard_constraints:
        target=any_of(SETTINGS.targets),
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=more_memory(4000),
        runtime=more_time(30),
    params:
        cfg=probing_params,
    message:
        f"Probing {sum(PLAN.layers.values())} layers for {{wildcards.target}}: {amount()}"
    script:
        "../scripts/probing.py"


# The research questions: which layer knows what, how stable that is, which aspects can be told
# apart, and whether the encoder has collapsed. Each ends in a table and a picture.
rule question:
    input:
        question_files,
    output:
        table=report(
            SETTINGS.layout.answer("{question}", ".tsv"),
            caption="../report/question.rst",
            category="Probing",
            labels={"result": "{question}", "form": "table"},
        ),
        picture=report(
            SETTINGS.layout.answer("{question}", ".png"),
            caption="../report/question.rst",
            category="Probing",
            labels={"result": "{question}", "form": "picture"},
        ),
    log:
        log_file("question", "{question}"),
    benchmark:
        benchmark_file("question", "{question}")
    wildcard_constraints:
        question=any_of(QUESTIONS),
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=more_memory(4000),
        runtime=more_time(60),
    params:
        cfg=question_params,
    message:
        "Answering: {wildcards.question}"
    script:
        "../scripts/question.py"


rule probes:
    input:
        probes(SETTINGS.targets),
        SETTINGS.layout.aspects,


rule answers:
    input:
        answers(),
        [SETTINGS.layout.tracked] if SETTINGS.tracking_uri else [],


if SETTINGS.tracking_uri:

    rule track:
        input:
            probes=probes(SETTINGS.targets),
            aspects=SETTINGS.layout.aspects,
            answers=answers(),
        output:
            SETTINGS.layout.tracked,
        log:
            log_file("track"),
        benchmark:
            benchmark_file("track")
        conda:
            "../../envs/tracking.yaml"
        threads: 1
        resources:
            mem_mb=more_memory(1000),
            runtime=more_time(30),
        params:
            cfg=PLAN.tracking_params(),
        message:
            "Logging probing results to MLflow"
        script:
            "../scripts/track.py"
