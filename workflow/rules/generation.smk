# shards -> attempts, per teacher, shard and round. Responses live in the store; these tables are compactions of it.


rule import_traces:
    input:
        shards=collect("<results>/corpus/shards/{shard}.parquet", shard=SHARDS),
        traces=trace_files,
        tokenizer=(
            folder_files(STUDY.curation.ngrams.tokenizer.model) if STUDY.curation.ngrams.tokenizer.is_local else []
        ),
        code=code("import_traces"),
    output:
        tables=expand("<results>/generation/{{teacher}}/traces/{shard}.parquet", shard=SHARDS),
        layouts="<results>/generation/{teacher}/traces.layouts.parquet",
        ledger="<results>/generation/{teacher}/traces.ledger.parquet",
        dropped="<results>/generation/{teacher}/traces.dropped.parquet",
    log:
        "<logs>/import_traces/{teacher}.log",
    conda:
        environment("corpus")
    threads: 8
    resources:
        mem_mb=growing(3000),
        runtime=growing(24 * 60),
    params:
        traces=lambda wildcards: STUDY.teachers[wildcards.teacher].model_dump(
            include={"traces", "traces_revision", "traces_files", "traces_layout"}
        ),
        tokenizer=settings(STUDY.curation.ngrams.tokenizer),
    script:
        "../scripts/import_traces.py"


rule generate_responses:
    input:
        queries="<results>/corpus/shards/{shard}.parquet",
        verdicts=verdicts_before,
        model=teacher_files,
        traces=imported_traces,
        code=code("generate_responses"),
    output:
        table="<results>/generation/{teacher}/{shard}/round{round}.parquet",
    log:
        "<logs>/generate_responses/{teacher}/{shard}/round{round}.log",
    conda:
        environment("generation")
    threads: 1
    resources:
        **ON_GPUS,
        mem_mb=growing(3000 if STUDY.miniature else 200000),
        runtime=30 if STUDY.miniature else 24 * 60,
        gpu=lambda wildcards: 0 if STUDY.miniature else STUDY.teachers[wildcards.teacher].devices,
    params:
        teacher=teacher_settings,
        store=STUDY.store,
    script:
        "../scripts/generate_responses.py"
