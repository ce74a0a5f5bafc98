for shard in PLAN.shards:

    rule:
        name:
            f"targets_{shard}"
        input:
            table=ancient(SETTINGS.layout.table),
        output:
            update(strings(PLAN.target_files(shard))),
            receipt=SETTINGS.layout.receipt("targets", shard),
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


# The one place where shards come together; what follows depends on the manifest alone. When the
# manifest is that of this plan it is a plain file without a rule: a shard may then run to repair a
# file, and nothing that follows has to.
if not PLAN.is_gathered("targets"):

    rule gather_targets:
        input:
            files=ancient(all_files("targets")),
            receipts=shard_receipts("targets"),
        output:
            SETTINGS.layout.manifest("targets"),
        log:
            log_file("gather_targets"),
        benchmark:
            benchmark_file("gather_targets")
        conda:
            "../../envs/search.yaml"
        threads: 1
        resources:
            mem_mb=more_memory(1000),
            runtime=more_time(10),
        params:
            cfg=PLAN.gathering_params("targets"),
        message:
            "Gathering the proxy targets of all shards"
        script:
            "../scripts/gather.py"
