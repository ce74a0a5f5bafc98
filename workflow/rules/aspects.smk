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
        mem_mb=more_memory(2000),
        runtime=more_time(30),
    params:
        cfg=PLAN.aspects_params(),
    message:
        "Deciding where each aspect is read from"
    script:
        "../scripts/aspects.py"
