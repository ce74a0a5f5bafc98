rule targets:
    input:
        table=ancient(SETTINGS.layout.table),
    output:
        SETTINGS.layout.receipt("targets", "{shard}"),
    log:
        log_file("targets", "{shard}"),
    benchmark:
        benchmark_file("targets", "{shard}")
    wildcard_constraints:
        shard=any_of(PLAN.shards),
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=more_memory(3000),
        runtime=more_time(60),
    params:
        cfg=targets_params,
    message:
        f"Proxy targets, shard {{wildcards.shard}} ({len(PLAN.shards)} shards, {amount()} in all)"
    script:
        "../scripts/targets.py"


# One small manifest per target, so that a new target runs its own probe only. A manifest that is
# that of this plan has no rule.
if PLAN.ungathered:

    rule gather_targets:
        input:
            gathered(),
        output:
            strings(map(SETTINGS.layout.target_manifest, PLAN.ungathered)),
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


rule all_targets:
    input:
        target_manifests(),
        receipts("targets"),
