# One rule per shard: its files are known when the table is, `update` keeps those that are there, and
# the model is loaded once for all of them.
for shard in PLAN.shards:

    rule:
        name:
            f"features_{shard}"
        input:
            table=ancient(SETTINGS.layout.table),
        output:
            update(strings(PLAN.feature_files(shard))),
            receipt=SETTINGS.layout.receipt("features", shard),
        log:
            log_file("features", shard),
        benchmark:
            benchmark_file("features", shard)
        conda:
            "../../envs/gpu.yaml"
        threads: 8
        resources:
            gpu=gpu_count,
            mem_mb=more_memory(5000),
            runtime=more_time(120),
        params:
            cfg=PLAN.features_params(shard),
        message:
            "MERT features of shard {params.cfg[shard]}"
        script:
            "../scripts/features.py"


# The one place where shards come together; what follows depends on the manifest alone. When the
# manifest is that of this plan it is a plain file without a rule: a shard may then run to repair a
# file, and nothing that follows has to.
if not PLAN.is_gathered("features"):

    rule gather_features:
        input:
            files=ancient(all_files("features")),
            receipts=shard_receipts("features"),
        output:
            SETTINGS.layout.manifest("features"),
        log:
            log_file("gather_features"),
        benchmark:
            benchmark_file("gather_features")
        conda:
            "../../envs/search.yaml"
        threads: 1
        resources:
            mem_mb=more_memory(1000),
            runtime=more_time(10),
        params:
            cfg=PLAN.gathering_params("features"),
        message:
            "Gathering the MERT features of all shards"
        script:
            "../scripts/gather.py"
