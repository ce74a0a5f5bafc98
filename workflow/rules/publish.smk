rule publish:
    input:
        index_receipts(),
    output:
        SETTINGS.layout.publish_receipt,
    log:
        log_file("publish"),
    benchmark:
        benchmark_file("publish")
    conda:
        "../../envs/search.yaml"
    threads: 1
    resources:
        mem_mb=more_memory(1000),
        runtime=more_time(60),
    params:
        cfg=PLAN.publish_params(),
    message:
        "Publishing the index artifacts"
    script:
        "../scripts/publish.py"
