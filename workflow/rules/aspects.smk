rule aspects:
    input:
        probes(PLAN.aspect_targets),
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
        "Resolving aspects to layers"
    script:
        "../scripts/aspects.py"
