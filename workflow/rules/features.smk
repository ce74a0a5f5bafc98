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
            receipt=SETTINGS.layout.features_receipt(shard),
        log:
            log_file("features", shard),
        benchmark:
            benchmark_file("features", shard)
        conda:
            "../../envs/gpu.yaml"
        threads: 2
        resources:
            gpu=gpu_count,
            mem_mb=more_memory(4000),
            runtime=more_time(120),
        params:
            cfg=PLAN.features_params(shard),
        message:
            "MERT features of shard {params.cfg[shard]}"
        script:
            "../scripts/features.py"
