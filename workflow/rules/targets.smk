for shard in shards_here(PLAN, "targets"):

    rule:
        name:
            f"targets_{shard}"
        input:
            table=ancient(SETTINGS.layout.table),
        output:
            to_make(PLAN, "targets", shard),
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
            f"Proxy targets of shard {shard}: {amount(PLAN.shards[shard])}"
        script:
            "../scripts/targets.py"


share_overrides(
    "targets", (f"targets_{shard}" for shard in shards_here(PLAN, "targets"))
)

# Where shards come together: one small manifest per target, so that a new target runs its own
# probe only. A manifest that is that of this plan is a plain file without a rule.
if PLAN.ungathered:

    rule gather_targets:
        input:
            shard_receipts(PLAN, "targets"),
        output:
            strings(SETTINGS.layout.target_manifest(name) for name in PLAN.ungathered),
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
            cfg=PLAN.gather_targets_params(),
        message:
            "Gathering the proxy targets of all shards"
        script:
            "../scripts/gather_targets.py"
