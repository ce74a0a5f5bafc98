# Spaces of content and expression that are learned, as far as they are shown to help.
rule geometry:
    input:
        aspects=SETTINGS.layout.aspects,
        probes=probes(PLAN.aspect_targets),
        features=SETTINGS.layout.features_manifest,
        alignments=SETTINGS.layout.alignments_manifest,
        counterfactuals=counterfactuals(),
    output:
        SETTINGS.layout.geometry,
        SETTINGS.layout.geometry.with_suffix(".json"),
    log:
        log_file("geometry"),
    benchmark:
        benchmark_file("geometry")
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=more_memory(4000),
        runtime=more_time(60),
    params:
        cfg=PLAN.geometry_params(),
    message:
        "Learning a geometry"
    script:
        "../scripts/geometry.py"


# What makes stored vectors of features: the general components, and the aspects' coordinates.
rule projection:
    input:
        aspects=SETTINGS.layout.aspects,
        probes=probes(PLAN.aspect_targets),
        layers=SETTINGS.layout.decomposition_receipt(ENCODER),
        geometry=geometry(),
    output:
        SETTINGS.layout.projection("{kind}"),
    log:
        log_file("projection", "{kind}"),
    benchmark:
        benchmark_file("projection", "{kind}")
    wildcard_constraints:
        kind=any_of(INDEX_KINDS),
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=more_memory(4000),
        runtime=more_time(60),
    params:
        cfg=projection_params,
    message:
        "Fitting what makes stored vectors of {wildcards.kind}"
    script:
        "../scripts/projection.py"


rule index:
    input:
        aspects=SETTINGS.layout.aspects,
        projection=SETTINGS.layout.projection("{kind}"),
        features=SETTINGS.layout.features_manifest,
        alignments=SETTINGS.layout.alignments_manifest,
    output:
        SETTINGS.layout.index_receipt("{kind}"),
    log:
        log_file("index", "{kind}"),
    benchmark:
        benchmark_file("index", "{kind}")
    wildcard_constraints:
        kind=any_of(INDEX_KINDS),
    conda:
        "../../envs/search.yaml"
    threads: 1
    resources:
        mem_mb=more_memory(4000),
        runtime=more_time(60),
    params:
        cfg=index_params,
    message:
        f"Building the index of {{wildcards.kind}}: {amount()}"
    script:
        "../scripts/index.py"


rule indices:
    input:
        index_receipts(),
