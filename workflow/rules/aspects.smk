rule aspects:
    input:
        probes=probes(PLAN.aspect_targets),
        layers=decompositions(),
    output:
        SETTINGS.layout.aspects,
    log:
        log_file("aspects"),
    benchmark:
        benchmark_file("aspects")
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=more_memory(1000),
        runtime=more_time(5),
    params:
        cfg=PLAN.aspects_params(),
    message:
        "Deciding where each aspect is read from"
    script:
        "../scripts/aspects.py"
