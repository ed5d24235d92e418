# Before anything is paid for: `snakemake plan` has every teacher answer a few queries, then says what the rest will take.


rule sample_pilot:
    input:
        shards=collect("<results>/corpus/shards/{shard}.parquet", shard=SHARDS),
        code=code("sample_pilot"),
    output:
        table="<results>/plan/queries.parquet",
    log:
        "<logs>/sample_pilot.log",
    conda:
        environment("corpus")
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        queries=STUDY.plan.queries,
    script:
        "../scripts/sample_pilot.py"


# The same jobs as for a shard: what they generate is in the store when the study comes to it.
use rule generate_responses as generate_pilot with:
    input:
        queries="<results>/plan/queries.parquet",
        verdicts=pilot_verdicts_before,
        model=teacher_files,
        code=code("generate_responses"),
    output:
        table="<results>/plan/{teacher}/round{round}.attempts.parquet",
    log:
        "<logs>/generate_pilot/{teacher}/round{round}.log",


if CONSTRAINT_JUDGE:

    use rule complete_constraints as complete_pilot_constraints with:
        input:
            shard="<results>/plan/queries.parquet",
            model=judge_files(CONSTRAINT_JUDGE),
            prompts=_PROMPTS,
            code=code("complete_constraints"),
        output:
            table="<results>/plan/constraints.parquet",
        log:
            "<logs>/complete_pilot_constraints.log",


use rule verify_responses as verify_pilot with:
    input:
        attempts="<results>/plan/{teacher}/round{round}.attempts.parquet",
        shard="<results>/plan/queries.parquet",
        constraints="<results>/plan/constraints.parquet" if CONSTRAINT_JUDGE else [],
        code=code("verify_responses"),
    output:
        table="<results>/plan/{teacher}/round{round}.verdicts.parquet",
    log:
        "<logs>/verify_pilot/{teacher}/round{round}.log",


if STUDY.verification.asked:

    use rule judge_responses as judge_pilot with:
        input:
            attempts="<results>/plan/{teacher}/round{round}.attempts.parquet",
            shard="<results>/plan/queries.parquet",
            verdicts=lambda wildcards: STUDY.verification.table(
                "<results>/plan/{teacher}/round{round}.verdicts", wildcards.judge
            ),
            model=lambda wildcards: judge_files(wildcards.judge),
            prompts=_PROMPTS,
            code=code("judge_responses"),
        output:
            table="<results>/plan/{teacher}/round{round}.verdicts.{judge}.parquet",
        log:
            "<logs>/judge_pilot/{teacher}/round{round}.{judge}.log",


# No output: what is in the store may have changed, so this runs whenever it is asked for.
rule plan:
    input:
        shards=collect("<results>/corpus/shards/{shard}.parquet", shard=SHARDS),
        queries="<results>/plan/queries.parquet",
        pilots=[path for name in GENERATING for kind in ("attempts", "verdicts") for path in pilot_tables(name, kind)],
        code=code("plan"),
    log:
        "<logs>/plan.log",
    conda:
        environment("generation")
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(240),
    params:
        pilots={name: (pilot_tables(name, "attempts"), pilot_tables(name, "verdicts")) for name in GENERATING},
        verdicts={
            name: [
                [
                    round_verdicts(name, shard, round).replace("<results>", STUDY.results)
                    for round in range(STUDY.teachers[name].rounds)
                ]
                for shard in SHARDS
            ]
            for name in GENERATING
        },
        teachers={name: teacher_block(name) for name in TEACHERS},
        prices=PRICES,
        store=STUDY.store,
        output=f"{STUDY.results}/plan/plan.csv",
    script:
        "../scripts/plan.py"
