# datasets -> students. One job trains one student: control x teacher x seed.


from whichteacher.miniature.teachers import BASE, MODELS, practice

_ARCHITECTURE = STUDY.training.architecture if STUDY.training else None
_NODES = STUDY.training.nodes if STUDY.training else 1
_DEVICES = STUDY.training.recipe.devices if STUDY.training and not _ARCHITECTURE else 0
# Several nodes are asked for by the GPUs of each, for a count of them all may be shared out unevenly. `mpi` says that the job
# starts the processes on its nodes itself, one `srun` task each, which may not be counted by GPU.
_MACHINES = (
    {"gpu": _DEVICES, "nodes": 1}
    if _NODES == 1
    else {
        "nodes": _NODES,
        "tasks": _NODES,
        "mpi": "srun",
        **({"gres": f"gpu:{_DEVICES // _NODES}", "tasks_per_gpu": 0} if _DEVICES else {}),
    }
)
# Of such a job the Slurm plugin hides which nodes it has, and `srun` needs to know.
if (
    _NODES > 1
    and not workflow.is_main_process
    and {"SLURM_JOB_ID", "SLURM_JOB_NODELIST"} & {*os.environ} == {"SLURM_JOB_ID"}
):
    asked = ["sh", "-c", 'squeue --noheader --format=%N --job "$SLURM_JOB_ID"']
    os.environ.update(
        SLURM_JOB_NODELIST=subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    )


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
        environment("training")
    # On each node: a process per GPU, with what feeds it.
    threads: 8 * _DEVICES // _NODES or 1
    resources:
        **_MACHINES,
        mem_mb=growing(2000 if _ARCHITECTURE else 512000),
        runtime=30 if _ARCHITECTURE else 7 * 24 * 60,
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
    cache: True
    conda:
        environment("training")
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(60),
    params:
        name=lambda wildcards: wildcards.model,
        practice=lambda wildcards: practice(wildcards.model),
    script:
        "../scripts/train_teacher.py"


rule teachers:
    input:
        collect("<results>/miniature/teachers/{model}", model=MODELS),
    localrule: True
