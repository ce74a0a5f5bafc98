if SETTINGS.dataset == "demo":

    rule demo_corpus:
        output:
            audio=directory(SETTINGS.layout.demo_audio),
            truth=SETTINGS.layout.demo_truth,
        log:
            log_file("demo_corpus"),
        benchmark:
            benchmark_file("demo_corpus")
        conda:
            "../../envs/analysis.yaml"
        threads: 1
        resources:
            mem_mb=more_memory(2000),
            runtime=more_time(10),
        params:
            cfg={"stage": stages.DEMO},
        message:
            "Performing and rendering the demo corpus"
        script:
            "../scripts/demo_corpus.py"


rule recordings:
    input:
        ancient(dataset_files()),
    output:
        table=update(SETTINGS.layout.table),
    log:
        log_file("recordings"),
    benchmark:
        benchmark_file("recordings")
    conda:
        "../../envs/analysis.yaml"
    threads: 2
    resources:
        mem_mb=more_memory(2000),
        runtime=more_time(240),
    params:
        cfg={"stage": stages.RECORDINGS},
    message:
        "Scanning the recordings of {output.table}"
    script:
        "../scripts/recordings.py"
