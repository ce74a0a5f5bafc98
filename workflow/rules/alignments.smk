# The recordings of a work on one time axis: a job per shard of works that have two or more.
rule alignments:
    input:
        table=ancient(SETTINGS.layout.table),
    output:
        SETTINGS.layout.receipt("alignments", "{shard}"),
    log:
        log_file("alignments", "{shard}"),
    benchmark:
        benchmark_file("alignments", "{shard}")
    wildcard_constraints:
        shard=any_of(PLAN.works),
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=more_memory(3000),
        runtime=more_time(120),
    params:
        cfg=alignments_params,
    message:
        f"Alignments, shard {{wildcards.shard}} ({len(PLAN.works)} shards of works with two or more recordings)"
    script:
        "../scripts/alignments.py"


# A manifest that is that of this plan has no rule, as those of features and targets.
if not PLAN.has_alignments:

    rule gather_alignments:
        input:
            alignment_receipts(),
        output:
            SETTINGS.layout.alignments_manifest,
        log:
            log_file("gather_alignments"),
        benchmark:
            benchmark_file("gather_alignments")
        conda:
            "../../envs/search.yaml"
        threads: 1
        resources:
            mem_mb=more_memory(1000),
            runtime=more_time(10),
        params:
            cfg=PLAN.gather_alignments_params(),
        message:
            "Gathering the alignments of all shards"
        script:
            "../scripts/gather_alignments.py"


rule all_alignments:
    input:
        SETTINGS.layout.alignments_manifest,
        alignment_receipts(),
