# What makes stored vectors of features: the general components, and the aspects' coordinates.
rule projection:
    input:
        aspects=SETTINGS.layout.aspects,
        probes=probes(PLAN.aspect_targets),
        layers=all_decompositions(ENCODER),
    output:
        SETTINGS.layout.projection,
    log:
        log_file("projection"),
    benchmark:
        benchmark_file("projection")
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=more_memory(4000),
        runtime=more_time(60),
    params:
        cfg=PLAN.projection_params(),
    message:
        "Fitting the projection from features to stored vectors"
    script:
        "../scripts/projection.py"


rule index:
    input:
        aspects=SETTINGS.layout.aspects,
        projection=SETTINGS.layout.projection,
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
