# attempts -> verdicts, per teacher, shard and round, by rule and then by the judges, each handing its table on to the next; then
# every attempt of a teacher and shard with the accepted ones marked; and what tells whether the verdicts can be trusted.

# What the rules use of the configuration: another judge verifies nothing again.
_RULES = settings(STUDY.verification, exclude={"judges", "audit"})
_PROMPTS = [from_here(path) for path in sorted((WORKFLOW.parent / "resources" / "judge_prompts").glob("*.txt"))]


if CONSTRAINT_JUDGE:

    # Once for all teachers: constraints belong to the query.
    rule complete_constraints:
        input:
            shard="<results>/corpus/shards/{shard}.parquet",
            model=judge_files(CONSTRAINT_JUDGE),
            prompts=_PROMPTS,
            code=code("complete_constraints"),
        output:
            table="<results>/verification/constraints/{shard}.parquet",
        log:
            "<logs>/complete_constraints/{shard}.log",
        conda:
            environment("generation")
        threads: 1
        resources:
            **ON_GPUS,
            mem_mb=growing(3000 if STUDY.miniature else 200000),
            runtime=60 if STUDY.miniature else 24 * 60,
            gpu=0 if STUDY.miniature else STUDY.verification.judges[CONSTRAINT_JUDGE].devices,
        params:
            name=CONSTRAINT_JUDGE,
            judge=lambda wildcards: judge_block(CONSTRAINT_JUDGE),
            store=STUDY.store,
        script:
            "../scripts/complete_constraints.py"


rule verify_responses:
    input:
        attempts="<results>/generation/{teacher}/{shard}/round{round}.parquet",
        shard="<results>/corpus/shards/{shard}.parquet",
        constraints="<results>/verification/constraints/{shard}.parquet" if CONSTRAINT_JUDGE else [],
        code=code("verify_responses"),
    output:
        table="<results>/verification/{teacher}/{shard}/round{round}.parquet",
    log:
        "<logs>/verify_responses/{teacher}/{shard}/round{round}.log",
    conda:
        environment("verification")
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(240),
    params:
        verification=_RULES,
        answer_format=lambda wildcards: STUDY.teachers[wildcards.teacher].answer_format,
    script:
        "../scripts/verify_responses.py"


if STUDY.verification.asked:

    rule judge_responses:
        input:
            attempts="<results>/generation/{teacher}/{shard}/round{round}.parquet",
            shard="<results>/corpus/shards/{shard}.parquet",
            verdicts=lambda wildcards: STUDY.verification.table(
                "<results>/verification/{teacher}/{shard}/round{round}", wildcards.judge
            ),
            model=lambda wildcards: judge_files(wildcards.judge),
            prompts=_PROMPTS,
            code=code("judge_responses"),
        output:
            table="<results>/verification/{teacher}/{shard}/round{round}.{judge}.parquet",
        log:
            "<logs>/judge_responses/{teacher}/{shard}/round{round}.{judge}.log",
        conda:
            environment("generation")
        threads: 1
        resources:
            **ON_GPUS,
            mem_mb=growing(3000 if STUDY.miniature else 200000),
            runtime=60 if STUDY.miniature else 24 * 60,
            gpu=lambda wildcards: 0 if STUDY.miniature else STUDY.verification.judges[wildcards.judge].devices,
        params:
            judge=lambda wildcards: judge_block(wildcards.judge),
            verification=_RULES,
            answer_format=lambda wildcards: STUDY.teachers[wildcards.teacher].answer_format,
            store=STUDY.store,
        script:
            "../scripts/judge_responses.py"


rule collect_attempts:
    input:
        attempts=lambda wildcards: collect(
            "<results>/generation/{teacher}/{shard}/round{round}.parquet",
            round=range(STUDY.teachers[wildcards.teacher].rounds),
            **dict(wildcards.items()),
        ),
        verdicts=lambda wildcards: [
            round_verdicts(wildcards.teacher, wildcards.shard, round)
            for round in range(STUDY.teachers[wildcards.teacher].rounds)
        ],
        shard="<results>/corpus/shards/{shard}.parquet",
        code=code("collect_attempts"),
    output:
        table="<results>/verification/{teacher}/{shard}/attempts.parquet",
        ledger="<results>/verification/{teacher}/{shard}/attempts.ledger.parquet",
        dropped="<results>/verification/{teacher}/{shard}/attempts.dropped.parquet",
    log:
        "<logs>/collect_attempts/{teacher}/{shard}.log",
    conda:
        environment("verification")
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(30),
    script:
        "../scripts/collect_attempts.py"


rule check_references:
    input:
        shard="<results>/corpus/shards/{shard}.parquet",
        code=code("check_references"),
    output:
        table="<results>/verification/references/{shard}.parquet",
    log:
        "<logs>/check_references/{shard}.log",
    conda:
        environment("verification")
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(240),
    params:
        deadline_seconds=STUDY.verification.deadline_seconds,
    script:
        "../scripts/check_references.py"


rule audit_verifiers:
    input:
        cases=[from_here(path) for path in sorted((WORKFLOW.parent / "resources" / "verifier_cases").glob("*.jsonl"))],
        code=code("audit_verifiers"),
    output:
        table="<results>/verification/audit/cases.parquet",
    log:
        "<logs>/audit_verifiers.log",
    conda:
        environment("verification")
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(60),
    params:
        verification=_RULES,
    script:
        "../scripts/audit_verifiers.py"


rule reverify_sample:
    input:
        collected=collect("<results>/verification/{teacher}/{shard}/attempts.parquet", teacher=TEACHERS, shard=SHARDS),
        queries=collect("<results>/corpus/shards/{shard}.parquet", shard=SHARDS),
        constraints=(
            collect("<results>/verification/constraints/{shard}.parquet", shard=SHARDS) if CONSTRAINT_JUDGE else []
        ),
        code=code("reverify_sample"),
    output:
        table="<results>/verification/audit/sample.parquet",
    log:
        "<logs>/reverify_sample.log",
    conda:
        environment("verification")
    threads: 1
    resources:
        mem_mb=growing(8000),
        runtime=growing(240),
    params:
        **STUDY.verification.audit.model_dump(),
        formats={name: teacher.answer_format for name, teacher in STUDY.teachers.items()},
        verification=_RULES,
    script:
        "../scripts/reverify_sample.py"


if STUDY.verification.asked_again:

    rule rejudge_sample:
        input:
            collected=rules.reverify_sample.input.collected,
            queries=rules.reverify_sample.input.queries,
            model=lambda wildcards: judge_files(wildcards.judge),
            prompts=_PROMPTS,
            code=code("rejudge_sample"),
        output:
            table="<results>/verification/audit/judged/{judge}.parquet",
        log:
            "<logs>/rejudge_sample/{judge}.log",
        conda:
            environment("generation")
        threads: 1
        resources:
            **ON_GPUS,
            mem_mb=growing(3000 if STUDY.miniature else 200000),
            runtime=60 if STUDY.miniature else 4 * 60,
            gpu=lambda wildcards: 0 if STUDY.miniature else STUDY.verification.judges[wildcards.judge].devices,
        params:
            judge=lambda wildcards: judge_block(wildcards.judge),
            formats={name: teacher.answer_format for name, teacher in STUDY.teachers.items()},
            verification=_RULES,
            sample=STUDY.verification.audit.sample,
            store=STUDY.store,
        script:
            "../scripts/rejudge_sample.py"
