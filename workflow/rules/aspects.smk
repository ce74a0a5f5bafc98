rule aspects:
    input:
        strings(SETTINGS.layout.probe(target) for target in SETTINGS.targets),
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


rule layer_map:
    input:
        strings(SETTINGS.layout.probe(target) for target in SETTINGS.targets),
    output:
        report(
            SETTINGS.layout.layer_map,
            caption="../report/layer_map.rst",
            category="Probing",
        ),
    log:
        log_file("layer_map"),
    benchmark:
        benchmark_file("layer_map")
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=more_memory(1000),
        runtime=more_time(5),
    params:
        cfg=PLAN.aspects_params(),
    message:
        "Drawing what every layer knows"
    script:
        "../scripts/layer_map.py"
