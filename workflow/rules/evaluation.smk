from snakemake.settings.types import DeploymentMethod

# LightEval needs an environment of its own: conda's, or the second virtual environment of `make setup`. Its path stays
# out of the rules' commands and parameters, so that moving the repository re-runs nothing.
if DeploymentMethod.CONDA in workflow.deployment_settings.deployment_method:
    os.environ.update(WHICHTEACHER_EVALUATION_PYTHON="python")
else:
    os.environ.setdefault(
        "WHICHTEACHER_EVALUATION_PYTHON", str(WORKFLOW.parent / ".venv-evaluation" / "bin" / "python")
    )

BENCHMARKS = list(STUDY.evaluation.benchmarks) if STUDY.evaluation else []


if STUDY.evaluation:

    # All benchmarks of a student in one job: starting the engine is the dear part, and the store holds what is drawn.
    rule evaluate_student:
        input:
            model="<results>/training/{control}/{teacher}/{seed}/model",
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
            "../../envs/evaluation.yaml"
        threads: 1
        resources:
            mem_mb=3000 if STUDY.miniature else 200000,
            runtime=60 if STUDY.miniature else 1440,
            gpu=0 if STUDY.miniature else STUDY.evaluation.tensor_parallel,
        params:
            student=lambda wildcards: f"{wildcards.control}/{wildcards.teacher}/{wildcards.seed}",
            store=STUDY.store,
            # A function, because Snakemake would take braces in a prompt for wildcards.
            settings=lambda wildcards: STUDY.evaluation.model_dump_json(
                include={
                    **{name: True for name in type(STUDY.evaluation).model_fields},
                    "benchmarks": {"__all__": {"category", "samples", "layout"}},
                }
            ),
        shell:
            'command -v "$WHICHTEACHER_EVALUATION_PYTHON" > /dev/null || {{'
            " echo \"ERROR in evaluate_student: no Python at $WHICHTEACHER_EVALUATION_PYTHON: run 'make setup'\""
            " | tee {log:q} >&2; exit 1; }};"
            ' "$WHICHTEACHER_EVALUATION_PYTHON" {input.script:q} --student {params.student:q} --model {input.model:q}'
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
            "../../envs/verification.yaml"
        threads: 1
        resources:
            mem_mb=2000,
            runtime=120,
        params:
            verification=settings(STUDY.verification, exclude={"judges", "audit"}),
        script:
            "../scripts/score_samples.py"
