import ast
import json
import os
import subprocess
import sys

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger
from snakemake.settings.types import DeploymentMethod

# This file's own place: the workflow is started from the repository's Snakefile or from workflow/from_results.smk.
WORKFLOW = Path(str(workflow.current_basedir)).resolve().parent
# Only what is in a folder of results is there, and only what draws it is needed.
RESULTS_ONLY = Path(workflow.main_snakefile).name == "from_results.smk"
sys.path.insert(0, str(WORKFLOW))
# Scripts run in their own interpreters: this is how they find the package.
os.environ.update(PYTHONPATH=str(WORKFLOW))
# Where the post-deploy scripts of the conda environments find their locks.
os.environ.update(WHICHTEACHER_ENVS=str(WORKFLOW.parent / "envs"))

from whichteacher.config import (
    CATEGORIES,
    PRESENTED,
    RUNNING,
    TRAINING_RUNNING,
    ConfigError,
    check_config,
    unpinned_revisions,
)
from whichteacher.miniature.teachers import check_digests
from whichteacher.places import locate

try:
    STUDY = check_config(config, folders=not RESULTS_ONLY)
except ConfigError as error:
    raise WorkflowError(str(error)) from None
if workflow.is_main_process and not RESULTS_ONLY:
    # Here alone, so that no job waits for polars.
    from whichteacher.cleaning import check_examples

    if misjudged := check_examples(STUDY.corpus.clean.model_dump(mode="json")):
        raise WorkflowError("\n".join(misjudged))
for key in unpinned_revisions(STUDY):
    logger.warning(f"config key {key}: all zeros stand for an unknown commit: pin the one you use before you run this")

if STUDY.miniature and not RESULTS_ONLY and (damaged := check_digests(WORKFLOW.parent / "resources" / "teachers")):
    raise WorkflowError(damaged)
if workflow.workflow_settings.cache is not None and (
    DeploymentMethod.CONDA not in workflow.deployment_settings.deployment_method
):
    raise WorkflowError(
        "--cache: without conda environments Snakemake's cache does not know by which packages a file was made: add --sdm conda"
    )

TEACHERS = list(STUDY.teachers)
PRICES = {
    name: teacher.model_dump(include={"price_per_million_tokens", "price_per_device_hour"})
    for name, teacher in STUDY.teachers.items()
}
# The models whose perplexity is taken; the first filters.
SCORERS = STUDY.curation.perplexity.scorers if STUDY.curation and STUDY.curation.perplexity else {}
# How a teacher is served goes around the rules' parameters: a change of it must generate nothing again.
config["running"] = {
    **{name: teacher.model_dump(mode="json", include=RUNNING) for name, teacher in STUDY.teachers.items()},
    # No teacher's name holds a colon.
    **{
        f"judge:{name}": judge.model_dump(mode="json", include=RUNNING)
        for name, judge in STUDY.verification.judges.items()
    },
    **{f"scorer:{name}": scorer.model_dump(mode="json", include=RUNNING) for name, scorer in SCORERS.items()},
    **({"training:": STUDY.training.model_dump(include=TRAINING_RUNNING)} if STUDY.training else {}),
}
CONSTRAINT_JUDGE = STUDY.verification.judge_of("instruction_following")
# What stands in the place of a control's name where it is no student that is evaluated.
MODELS_CONTROL = "models"
EVALUATED = STUDY.evaluation.models if STUDY.evaluation else {}
CONTROLS = list(STUDY.curation.controls) if STUDY.curation else []
# The datasets that the figures show, and whose students: the first control's.
SHOWN = next(iter(CONTROLS), None)
# What training leaves of every student, by name.
STUDENT_FILES = {
    name: (
        collect(
            f"<results>/training/{{control}}/{{teacher}}/{{seed}}/{name}",
            control=CONTROLS,
            teacher=TEACHERS,
            seed=STUDY.training.seeds,
        )
        if STUDY.training
        else []
    )
    for name in ("summary.json", "preflight.json", "rows.ledger.parquet")
}
BENCHMARK_BLOCKS = STUDY.evaluation.benchmarks if STUDY.evaluation else {}
AUDIT_TABLES = [
    "releases",
    "layouts",
    "unchecked",
    "verification",
    "disagreements",
    "faults",
    "systems",
    "truncation",
    "lengths",
    "repetition",
    "duplicates",
    "duplicate_pairs",
    "contamination",
    "quotations",
    "shared",
    "licences",
]
SHARDS = range(STUDY.corpus.shards)
GENERATING = [name for name, teacher in STUDY.teachers.items() if teacher.engine != "dataset"]


def from_here(path: Path) -> str:
    """``path`` seen from the working directory: a moved project must not look like one with other inputs."""
    return os.path.relpath(path)


def code(script: str) -> list[str]:
    """The script's own modules, followed through their imports: rules list them as inputs, so that an edit re-runs
    the rules that use the edited file and no others."""
    found, queue = set(), [WORKFLOW / "scripts" / f"{script}.py"]
    while queue:
        tree = ast.parse(queue.pop().read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                continue
            for name in names:
                path = WORKFLOW.joinpath(*name.split(".")).with_suffix(".py")
                if name.startswith("whichteacher.") and path.is_file() and path not in found:
                    found.add(path)
                    queue.append(path)
    return sorted(from_here(path) for path in found)


# LightEval needs an environment of its own: conda's, or the second virtual environment of `make setup`. Its path stays
# out of the rules' commands and parameters, so that moving the repository re-runs nothing.
if DeploymentMethod.CONDA in workflow.deployment_settings.deployment_method:
    os.environ.update(WHICHTEACHER_EVALUATION_PYTHON="python")
else:
    os.environ.setdefault(
        "WHICHTEACHER_EVALUATION_PYTHON", str(WORKFLOW.parent / ".venv-evaluation" / "bin" / "python")
    )


def evaluation_python(rule: str) -> str:
    """The beginning of a command that runs in LightEval's environment, with its error where that is not set up."""
    return (
        'command -v "$WHICHTEACHER_EVALUATION_PYTHON" > /dev/null || {{'
        f" echo \"ERROR in {rule}: no Python at $WHICHTEACHER_EVALUATION_PYTHON: run 'make setup'\""
        ' | tee {log:q} >&2; exit 1; }}; "$WHICHTEACHER_EVALUATION_PYTHON"'
    )


# What a job on GPUs takes beside them: they are of one machine, where its engine finds them all, and cores feed each.
ON_GPUS = {"nodes": 1, "cpus_per_gpu": 8}


def growing(amount):
    """A resource that every retry is given half as much more of as the first attempt had; ``amount`` is a number, or a function of
    the job's inputs. What goes on where it was killed needs more memory, but no more time."""

    def need(wildcards, input, attempt) -> int:
        first = amount(input) if callable(amount) else amount
        return first * (attempt + 1) // 2

    return need


def environment(stage: str) -> str:
    """A stage's conda environment, seen from the folder of the rules: the miniature takes those for machines without a GPU."""
    cpu = WORKFLOW.parent / "envs" / "cpu" / f"{stage}.yaml"
    return f"../../envs/{'cpu/' if STUDY.miniature and cpu.exists() else ''}{stage}.yaml"


def one_of(names) -> str:
    """The wildcard constraint for one of ``names``, which nothing meets where there are none."""
    return "|".join(names) or "(?!)"


def settings(block, exclude=()) -> dict:
    """A block of the configuration as plain JSON types, for ``params``."""
    return block.model_dump(mode="json", exclude=set(exclude))


def teacher_block(name: str) -> dict:
    """What decides what a teacher says, as plain JSON types."""
    return STUDY.teachers[name].model_dump(mode="json", exclude=RUNNING | dict.fromkeys(PRESENTED, True))


def teacher_settings(wildcards) -> dict:
    """:func:`teacher_block` of the job's teacher, for ``params``."""
    return teacher_block(wildcards.teacher)


def judge_block(name: str) -> dict:
    """What decides what a judge says, as plain JSON types: as for a teacher, and always the likeliest token."""
    judge = STUDY.verification.judges[name].model_dump(mode="json", exclude=RUNNING)
    sampling = {"temperature": 0.0, "top_p": 1.0, "top_k": -1, "max_tokens": judge["max_tokens"], "stop": None}
    return {**judge, "sampling": sampling}


def judge_files(name: str) -> list[str]:
    """A local judge's files."""
    judge = STUDY.verification.judges[name]
    return folder_files(judge.model) if judge.is_loaded and judge.is_local else []


def scorer_block(name: str) -> dict:
    """What decides what a scorer finds, as plain JSON types."""
    return SCORERS[name].model_dump(mode="json", exclude=RUNNING)


def perplexity_settings() -> dict | None:
    """What decides perplexities and what is dropped for them, as plain JSON types."""
    if not SCORERS:
        return None
    block = settings(STUDY.curation.perplexity, exclude={"scorers"})
    return {**block, "scorers": {name: scorer_block(name) for name in SCORERS}}


def scorer_files(wildcards):
    """A local scorer's files: new weights score again."""
    scorer = SCORERS[wildcards.scorer]
    return folder_files(scorer.model) if scorer.is_local else []


def folder_files(folder: str) -> list[str]:
    """The files of a local folder, at any depth: of a model, or of published traces."""
    return [from_here(path) for path in sorted(Path(locate(folder)).rglob("*")) if path.is_file()]


def round_verdicts(teacher: str, shard: int | str, round: int | str) -> str:
    """The verdicts of a round, after all judges."""
    return STUDY.verification.table(f"<results>/verification/{teacher}/{shard}/round{round}")


def verdicts_before(wildcards):
    """The verdicts of the rounds before this one."""
    return [round_verdicts(wildcards.teacher, wildcards.shard, earlier) for earlier in range(int(wildcards.round))]


def pilot_tables(name: str, kind: str) -> list[str]:
    """The pilot's tables of one teacher, by round; ``kind`` is ``attempts`` or ``verdicts``."""
    stems = [f"{STUDY.results}/plan/{name}/round{round}.{kind}" for round in range(STUDY.teachers[name].rounds)]
    return [STUDY.verification.table(stem) if kind == "verdicts" else f"{stem}.parquet" for stem in stems]


def pilot_verdicts_before(wildcards):
    """The pilot's verdicts of the rounds before this one."""
    return pilot_tables(wildcards.teacher, "verdicts")[: int(wildcards.round)]


def trace_files(wildcards):
    """The files of published traces that lie in a local folder."""
    teacher = STUDY.teachers[wildcards.teacher]
    if teacher.traces_revision:
        return []
    if teacher.traces_files is None:
        return folder_files(teacher.traces)
    return [from_here(Path(locate(teacher.traces)) / name) for name in teacher.traces_files]


def imported_traces(wildcards):
    """The published traces of a shard, for a teacher that has some."""
    published = STUDY.teachers[wildcards.teacher].engine == "dataset"
    return "<results>/generation/{teacher}/traces/{shard}.parquet" if published else []


def audit_report(wildcards):
    """The report of a study that audits published traces; any other says how to make one."""
    if not STUDY.audit:
        raise WorkflowError("this study audits no published traces: name them in `audit`, as config/audit.yaml does")
    return f"{STUDY.results}/report.html"


def teacher_files(wildcards):
    """A local teacher's files: new weights re-run its rounds (and find nothing of the old ones in the store)."""
    teacher = STUDY.teachers[wildcards.teacher]
    return folder_files(teacher.model) if teacher.is_loaded and teacher.is_local else []


def evaluated_files(wildcards):
    """The files of what is evaluated: a student's folder, or a local model's files."""
    if wildcards.control != MODELS_CONTROL:
        return "<results>/training/{control}/{teacher}/{seed}/model"
    model = EVALUATED[wildcards.teacher]
    return folder_files(model.model) if model.is_local else []


def evaluated_model(wildcards, input):
    """Folder or hub id of what is evaluated."""
    if wildcards.control != MODELS_CONTROL:
        return input.model
    model = EVALUATED[wildcards.teacher]
    return from_here(Path(locate(model.model))) if model.is_local else model.model


def evaluation_settings(wildcards):
    """The evaluation block without what concerns other jobs, as JSON; what a model says of itself stands in it."""
    shared = {name: True for name in type(STUDY.evaluation).model_fields if name != "models"}
    asked = {"benchmarks": {"__all__": {"category", "samples", "layout", "task"}}}
    block = STUDY.evaluation.model_dump(mode="json", include={**shared, **asked})
    own = {"revision": None, "answer_format": "tags"}
    if wildcards.control == MODELS_CONTROL:
        model = EVALUATED[wildcards.teacher]
        own = model.model_dump(include={"revision", "dtype", "answer_format", "tensor_parallel", "data_parallel"})
        own["system_prompt"] = block["system_prompt"] if model.system_prompt is None else model.system_prompt
    return json.dumps({**block, **own})


def there(paths) -> list[str]:
    """``paths``; where only results are at hand, those of them that are: text and traces need not be copied with them."""
    return [path for path in paths if not RESULTS_ONLY or Path(path.replace("<results>", STUDY.results)).exists()]


def task_settings(wildcards):
    """What decides which problems a LightEval task yields, as JSON."""
    asked = {"task", "revision", "path", "category", "exclude", "expected_problems"}
    return BENCHMARK_BLOCKS[wildcards.benchmark].model_dump_json(include=asked)


def evaluation_devices(wildcards):
    """GPUs that an evaluation takes."""
    if STUDY.miniature:
        return 0
    block = EVALUATED[wildcards.teacher] if wildcards.control == MODELS_CONTROL else STUDY.evaluation
    return block.tensor_parallel * block.data_parallel


def ledgers_down_to(wildcards):
    """The ledgers of everything that led to a dataset, in the order the data flows."""
    return [
        *collect("<results>/corpus/imported/{source}.ledger.parquet", source=list(STUDY.corpus.sources)),
        "<results>/corpus/cleaned.ledger.parquet",
        "<results>/corpus/deduplicated.ledger.parquet",
        "<results>/corpus/decontaminated.ledger.parquet",
        *(
            ["<results>/generation/{teacher}/traces.ledger.parquet"]
            if STUDY.teachers[wildcards.teacher].engine == "dataset"
            else []
        ),
        *expand("<results>/verification/{{teacher}}/{shard}/attempts.ledger.parquet", shard=SHARDS),
        *expand("<results>/curation/{{teacher}}/{shard}/traces.ledger.parquet", shard=SHARDS),
        "<results>/datasets/{control}/{teacher}.ledger.parquet",
    ]


def study_of_export(wildcards) -> dict:
    """What an export says of the study: its name, the settings that led to the dataset, who publishes it."""
    return {
        "name": STUDY.study,
        "settings": {
            "teacher": teacher_settings(wildcards),
            "corpus": settings(STUDY.corpus, exclude={"shards"}),
            "verification": settings(STUDY.verification, exclude={"judges", "audit"})
            | {"judges": {name: judge_block(name) for name in STUDY.verification.judges}},
            "curation": settings(STUDY.curation, exclude={"controls", "release", "perplexity"})
            | {"perplexity": perplexity_settings()},
        },
        "release": settings(STUDY.curation.release),
    }


wildcard_constraints:
    source="[a-z0-9_]+",
    benchmark="[a-z0-9_]+",
    teacher="[a-z0-9_]+",
    control="[a-z0-9_]+",
    shard=r"\d+",
    round=r"\d+",
    judge="[a-z0-9_]+",
    scorer="[a-z0-9_]+",
    seed=r"\d+",
