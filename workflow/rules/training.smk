# datasets -> students. One job trains one student: control x teacher x seed.


from whichteacher.miniature.teachers import BASE, MODELS, practice

_ARCHITECTURE = STUDY.training.architecture if STUDY.training else None


rule train_student:
    input:
        dataset="<results>/datasets/{control}/{teacher}.parquet",
        tokenizer=folder_files(_ARCHITECTURE.tokenizer) if _ARCHITECTURE else [],
        card=from_here(WORKFLOW / "report" / "student_card.md"),
        code=code("train_student"),
    output:
        model=directory("<results>/training/{control}/{teacher}/{seed}/model"),
        log="<results>/training/{control}/{teacher}/{seed}/log.parquet",
        preflight="<results>/training/{control}/{teacher}/{seed}/preflight.json",
        ledger="<results>/training/{control}/{teacher}/{seed}/rows.ledger.parquet",
        dropped="<results>/training/{control}/{teacher}/{seed}/rows.dropped.parquet",
        summary="<results>/training/{control}/{teacher}/{seed}/summary.json",
    log:
        "<logs>/train_student/{control}/{teacher}/{seed}.log",
    conda:
        "../../envs/training.yaml"
    # On each node: a process per GPU, with what feeds it.
    threads: 1 if _ARCHITECTURE or not STUDY.training else 8 * STUDY.training.recipe.devices // STUDY.training.nodes
    resources:
        mem_mb=growing(2000 if _ARCHITECTURE else 512000),
        runtime=30 if _ARCHITECTURE else 7 * 24 * 60,
        # Of all nodes together, as Slurm counts them.
        gpu=STUDY.training.recipe.devices if STUDY.training and not _ARCHITECTURE else 0,
        nodes=STUDY.training.nodes if STUDY.training else 1,
    params:
        training=settings(STUDY.training, exclude={"seeds", *TRAINING_RUNNING}) if STUDY.training else None,
        store=STUDY.store,
        seed=lambda wildcards: int(wildcards.seed),
    script:
        "../scripts/train_student.py"


rule train_teacher:
    input:
        # Every model but the base itself starts from it.
        unpack(lambda wildcards: {} if wildcards.model == BASE else {"base": f"<results>/miniature/teachers/{BASE}"}),
        code=code("train_teacher"),
    output:
        model=directory("<results>/miniature/teachers/{model}"),
    log:
        "<logs>/train_teacher/{model}.log",
    conda:
        "../../envs/training.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(60),
    params:
        practice=lambda wildcards: practice(wildcards.model),
    script:
        "../scripts/train_teacher.py"


rule teachers:
    input:
        collect("<results>/miniature/teachers/{model}", model=MODELS),
    localrule: True
