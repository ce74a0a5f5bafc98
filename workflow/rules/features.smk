if UNTRAINED in SETTINGS.sources:

    rule untrained:
        output:
            UNTRAINED_FILES,
        log:
            log_file("untrained"),
        benchmark:
            benchmark_file("untrained")
        conda:
            "../../envs/gpu.yaml"
        threads: 1
        resources:
            mem_mb=more_memory(3000),
            runtime=more_time(10),
        params:
            cfg=PLAN.untrained_params(),
        message:
            "Making an untrained encoder of the same shape"
        script:
            "../scripts/untrained.py"


# One job per shard: the model is loaded once for all of its recordings, of which the receipt tells.
rule features:
    input:
        table=ancient(SETTINGS.layout.table),
        model=ancient(untrained_model),
    output:
        SETTINGS.data / "embeddings" / "{folder}" / "shards" / "{shard}.json",
    log:
        log_file("features", "{folder}", "{shard}"),
    benchmark:
        benchmark_file("features", "{folder}", "{shard}")
    wildcard_constraints:
        folder=any_of(ENCODED),
        shard=any_of(PLAN.shards),
    conda:
        "../../envs/gpu.yaml"
    # Shards side by side use processors better than windows of a small encoder do.
    threads: 1 if PLAN.spec.kind == "small" else 8
    resources:
        gpu=gpu_count,
        mem_mb=more_memory(5000),
        runtime=more_time(120),
    params:
        cfg=features_params,
    message:
        f"Features in {{wildcards.folder}}, shard {{wildcards.shard}} ({len(PLAN.shards)} shards, {amount()} in all)"
    script:
        "../scripts/features.py"


# Descriptors need no encoder: neither its environment nor a GPU, nor the partition that has them.
use rule features as descriptors with:
    log:
        log_file("descriptors", "{folder}", "{shard}"),
    benchmark:
        benchmark_file("descriptors", "{folder}", "{shard}")
    wildcard_constraints:
        folder=any_of(DESCRIBED),
        shard=any_of(PLAN.shards),
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        gpu=0,
        mem_mb=more_memory(2000),
        runtime=more_time(60),
    message:
        f"Descriptors in {{wildcards.folder}}, shard {{wildcards.shard}} ({len(PLAN.shards)} shards, {amount()} in all)"


# The one place where shards come together; what follows depends on the manifest alone. A manifest
# that is that of this plan has no rule: a shard may then run to repair a file, and nothing follows.
if UNGATHERED:

    rule gather_features:
        input:
            feature_receipts,
        output:
            SETTINGS.data / "embeddings" / "{folder}" / "manifest.json",
        log:
            log_file("gather_features", "{folder}"),
        benchmark:
            benchmark_file("gather_features", "{folder}")
        wildcard_constraints:
            folder=any_of(UNGATHERED),
        conda:
            "../../envs/search.yaml"
        threads: 1
        resources:
            mem_mb=more_memory(1000),
            runtime=more_time(10),
        params:
            cfg=gather_features_params,
        message:
            "Gathering the features of all shards in {wildcards.folder}"
        script:
            "../scripts/gather_features.py"


# The same notes played otherwise: of a few performances, so that there is one job. MIDI is rendered
# here, so that it needs more than the encoder.
if PLAN.varied:

    rule counterfactuals:
        input:
            ancient(SETTINGS.layout.table),
        output:
            SETTINGS.layout.counterfactuals,
        log:
            log_file("counterfactuals"),
        benchmark:
            benchmark_file("counterfactuals")
        conda:
            "../../envs/rendering.yaml"
        threads: 1 if PLAN.spec.kind == "small" else 8
        resources:
            gpu=gpu_count,
            mem_mb=more_memory(5000),
            runtime=more_time(60),
        params:
            cfg=PLAN.counterfactuals_params(),
        message:
            f"Playing {len(PLAN.varied)} performances otherwise"
        script:
            "../scripts/counterfactuals.py"


rule all_features:
    input:
        features_manifests(),
        [receipts("features", source) for source in SETTINGS.sources],
