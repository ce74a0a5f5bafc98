rule index:
    input:
        aspects=SETTINGS.layout.aspects,
        features=SETTINGS.layout.features_manifest,
    output:
        directory(SETTINGS.layout.index("{kind}")),
    log:
        log_file("index", "{kind}"),
    benchmark:
        benchmark_file("index", "{kind}")
    wildcard_constraints:
        kind="|".join(INDEX_KINDS),
    conda:
        "../../envs/search.yaml"
    threads: 1
    resources:
        mem_mb=more_memory(4000),
        runtime=more_time(60),
    params:
        cfg=index_params,
    message:
        "Building the index of {wildcards.kind}"
    script:
        "../scripts/index.py"
