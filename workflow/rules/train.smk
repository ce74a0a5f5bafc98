# Asked for by name: `snakemake data/models/trained/model.safetensors`, then `encoder=data/models/trained`.
if SETTINGS.train_performances and SETTINGS.train_pianos:

    rule train:
        output:
            SETTINGS.layout.trained / "config.json",
            SETTINGS.layout.trained / "model.safetensors",
            SETTINGS.layout.trained / "card.json",
        log:
            log_file("train"),
        benchmark:
            benchmark_file("train")
        conda:
            "../../envs/analysis.yaml"
        threads: 8
        resources:
            gpu=int(SETTINGS.device != "cpu"),
            mem_mb=more_memory(6000),
            runtime=more_time(240),
        params:
            cfg=PLAN.training_params(),
        message:
            "Training a small encoder"
        script:
            "../scripts/train.py"
