# attempts -> verdicts, per teacher, shard and round; then every attempt of a teacher and shard with the accepted ones marked.


rule verify_responses:
    input:
        attempts="<results>/generation/{teacher}/{shard}/round{round}.parquet",
        shard="<results>/corpus/shards/{shard}.parquet",
        code=code("verify_responses"),
    output:
        table="<results>/verification/{teacher}/{shard}/round{round}.parquet",
    log:
        "<logs>/verify_responses/{teacher}/{shard}/round{round}.log",
    conda:
        "../../envs/verification.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=240,
    params:
        verification=settings(STUDY.verification),
        answer_format=lambda wildcards: STUDY.teachers[wildcards.teacher].answer_format,
    script:
        "../scripts/verify_responses.py"


rule collect_attempts:
    input:
        attempts=lambda wildcards: collect(
            "<results>/generation/{teacher}/{shard}/round{round}.parquet",
            round=range(STUDY.teachers[wildcards.teacher].rounds),
            **dict(wildcards.items()),
        ),
        verdicts=lambda wildcards: collect(
            "<results>/verification/{teacher}/{shard}/round{round}.parquet",
            round=range(STUDY.teachers[wildcards.teacher].rounds),
            **dict(wildcards.items()),
        ),
        shard="<results>/corpus/shards/{shard}.parquet",
        code=code("collect_attempts"),
    output:
        table="<results>/verification/{teacher}/{shard}/attempts.parquet",
        ledger="<results>/verification/{teacher}/{shard}/attempts.ledger.parquet",
        dropped="<results>/verification/{teacher}/{shard}/attempts.dropped.parquet",
    log:
        "<logs>/collect_attempts/{teacher}/{shard}.log",
    conda:
        "../../envs/verification.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    script:
        "../scripts/collect_attempts.py"
