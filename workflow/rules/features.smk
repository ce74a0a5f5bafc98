if UNTRAINED in SETTINGS.baselines:

    rule untrained:
        output:
            directory(PLAN.untrained.settings.encoder),
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


# One rule per shard: the model is loaded once for all of its files, of which the receipt tells.
for plan in PLAN.extractions:
    for shard in shards_here(plan, "features"):

        rule:
            name:
                variant_name("features", plan, shard)
            input:
                table=ancient(SETTINGS.layout.table),
                model=ancient(models_made_here(plan)),
            output:
                to_make(plan, "features", shard),
                receipt=plan.settings.layout.receipt("features", shard),
            log:
                log_file(variant_name("features", plan), shard),
            benchmark:
                benchmark_file(variant_name("features", plan), shard)
            conda:
                "../../envs/gpu.yaml"
            threads: 8
            resources:
                gpu=gpu_count,
                mem_mb=more_memory(5000),
                runtime=more_time(120),
            params:
                cfg=plan.features_params(shard),
            message:
                features_message(plan, shard)
            script:
                "../scripts/features.py"

    share_overrides(
        "features",
        (
            variant_name("features", plan, shard)
            for shard in shards_here(plan, "features")
        ),
    )
    # The one place where shards come together; what follows depends on the manifest alone. When the
    # manifest is that of this plan it is a plain file without a rule: a shard may then run to repair
    # a file, and nothing that follows has to.
    if not plan.has_features:

        rule:
            name:
                variant_name("gather_features", plan)
            input:
                shard_receipts(plan, "features"),
            output:
                plan.settings.layout.features_manifest,
            log:
                log_file(variant_name("gather_features", plan)),
            benchmark:
                benchmark_file(variant_name("gather_features", plan))
            conda:
                "../../envs/search.yaml"
            threads: 1
            resources:
                mem_mb=more_memory(1000),
                runtime=more_time(10),
            params:
                cfg=plan.gather_features_params(),
            message:
                f"Gathering the MERT features of all shards: {amount(plan.recordings)}"
            script:
                "../scripts/gather_features.py"
