for shard in PLAN.shards:

    rule:
        name:
            f"targets_{shard}"
        input:
            table=ancient(SETTINGS.layout.table),
        output:
            update(strings(PLAN.target_files(shard))),
            receipt=SETTINGS.layout.targets_receipt(shard),
        log:
            log_file("targets", shard),
        benchmark:
            benchmark_file("targets", shard)
        conda:
            "../../envs/analysis.yaml"
        threads: 1
        resources:
            mem_mb=more_memory(3000),
            runtime=more_time(60),
        params:
            cfg=PLAN.targets_params(shard),
        message:
            "Proxy targets of shard {params.cfg[shard]}"
        script:
            "../scripts/targets.py"
