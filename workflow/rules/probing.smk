rule probing:
    input:
        features=SETTINGS.layout.manifest("features"),
        targets=SETTINGS.layout.manifest("targets"),
    output:
        SETTINGS.layout.probe("{target}"),
    log:
        log_file("probing", "{target}"),
    benchmark:
        benchmark_file("probing", "{target}")
    wildcard_constraints:
        target="|".join(scalar_targets()),
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=more_memory(2000),
        runtime=more_time(30),
    params:
        cfg=probing_params,
    message:
        "Probing all layers for {wildcards.target}"
    script:
        "../scripts/probing.py"
