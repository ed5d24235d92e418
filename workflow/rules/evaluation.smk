BENCHMARKS = list(STUDY.evaluation.benchmarks) if STUDY.evaluation else []


if STUDY.evaluation:

    # All benchmarks of a student in one job: starting the engine is the dear part, and the store holds what is drawn.
    rule evaluate_student:
        input:
            model=evaluated_files,
            problems=expand("<results>/corpus/benchmarks/{benchmark}.parquet", benchmark=BENCHMARKS),
            script=from_here(WORKFLOW / "scripts" / "evaluate_student.py"),
            code=code("evaluate_student"),
        output:
            samples=expand(
                "<results>/evaluation/{{control}}/{{teacher}}/{{seed}}/{benchmark}.parquet",
                benchmark=BENCHMARKS,
            ),
        log:
            "<logs>/evaluate_student/{control}/{teacher}/{seed}.log",
        conda:
            environment("evaluation")
        threads: 1
        resources:
            **ON_GPUS,
            mem_mb=growing(3000 if STUDY.miniature else 200000),
            runtime=60 if STUDY.miniature else 1440,
            gpu=evaluation_devices,
        params:
            student=lambda wildcards: f"{wildcards.control}/{wildcards.teacher}/{wildcards.seed}",
            model=evaluated_model,
            store=STUDY.store,
            # A function, because Snakemake would take braces in a prompt for wildcards.
            settings=evaluation_settings,
        shell:
            evaluation_python("evaluate_student")
            + " {input.script:q} --student {params.student:q} --model {params.model:q}"
            " --problems {input.problems:q} --samples {output.samples:q} --settings {params.settings:q}"
            " --store {params.store:q} --log {log:q}"

    rule score_samples:
        input:
            samples="<results>/evaluation/{control}/{teacher}/{seed}/{benchmark}.parquet",
            problems="<results>/corpus/benchmarks/{benchmark}.parquet",
            code=code("score_samples"),
        output:
            table="<results>/evaluation/{control}/{teacher}/{seed}/{benchmark}.scored.parquet",
        log:
            "<logs>/score_samples/{control}/{teacher}/{seed}/{benchmark}.log",
        conda:
            environment("verification")
        threads: 1
        resources:
            mem_mb=growing(2000),
            runtime=growing(120),
        params:
            verification=settings(STUDY.verification, exclude={"judges", "audit"}),
            # Every student learns the one response format, whatever its teacher's own was.
            answer_format=lambda wildcards: (
                EVALUATED[wildcards.teacher].answer_format if wildcards.control == MODELS_CONTROL else "tags"
            ),
        script:
            "../scripts/score_samples.py"


if EVALUATED:

    rule score_models:
        input:
            scored=collect(
                "<results>/evaluation/{control}/{model}/0/{benchmark}.scored.parquet",
                control=MODELS_CONTROL,
                model=EVALUATED,
                benchmark=BENCHMARKS,
            ),
            code=code("score_models"),
        output:
            "<results>/statistics/model_scores.csv",
        log:
            "<logs>/score_models.log",
        conda:
            environment("statistics")
        threads: 1
        resources:
            mem_mb=growing(4000),
            runtime=growing(30),
        params:
            models={name: model.model_dump(include={"expected"}) for name, model in EVALUATED.items()},
        script:
            "../scripts/score_models.py"

    rule check_reference:
        input:
            scores="<results>/statistics/model_scores.csv",
            code=code("check_reference"),
        output:
            "<results>/statistics/reference.csv",
        log:
            "<logs>/check_reference.log",
        conda:
            environment("statistics")
        threads: 1
        resources:
            mem_mb=growing(1000),
            runtime=growing(10),
        script:
            "../scripts/check_reference.py"


rule reference:
    input:
        "<results>/statistics/reference.csv",
    localrule: True
