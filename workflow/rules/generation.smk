# shards -> attempts, per teacher, shard and round. Responses live in the store; these tables are compactions of it.


rule generate_responses:
    input:
        queries="<results>/corpus/shards/{shard}.parquet",
        verdicts=verdicts_before,
        model=teacher_files,
        code=code("generate_responses"),
    output:
        table="<results>/generation/{teacher}/{shard}/round{round}.parquet",
    log:
        "<logs>/generate_responses/{teacher}/{shard}/round{round}.log",
    conda:
        "../../envs/generation.yaml"
    threads: 1
    resources:
        mem_mb=3000 if STUDY.miniature else 200000,
        runtime=30 if STUDY.miniature else 24 * 60,
        gpu=lambda wildcards: 0 if STUDY.miniature else STUDY.teachers[wildcards.teacher].tensor_parallel,
    params:
        teacher=lambda wildcards: settings(STUDY.teachers[wildcards.teacher], exclude={"label", "colour"}),
        store=STUDY.store,
        tokenizer=settings(STUDY.curation.ngrams.tokenizer),
    script:
        "../scripts/generate_responses.py"
