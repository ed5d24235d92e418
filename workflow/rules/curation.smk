# attempts -> traces -> datasets that may be compared -> the released schema.

_ATTEMPTS = collect("<results>/verification/{{teacher}}/{shard}/attempts.parquet", shard=SHARDS)
_QUERIES = collect("<results>/corpus/shards/{shard}.parquet", shard=SHARDS)


rule score_perplexity:
    input:
        attempts=_ATTEMPTS,
        queries=_QUERIES,
        scorer=(
            folder_files(STUDY.curation.perplexity.scorer.model)
            if STUDY.curation.perplexity and STUDY.curation.perplexity.scorer.is_local
            else []
        ),
        code=code("score_perplexity"),
    output:
        table="<results>/curation/{teacher}/perplexities.parquet",
    log:
        "<logs>/score_perplexity/{teacher}.log",
    conda:
        "../../envs/curation.yaml"
    threads: 1
    resources:
        mem_mb=2000 if STUDY.miniature else 200000,
        runtime=20 if STUDY.miniature else 24 * 60,
        gpu=0 if STUDY.miniature else 1,
    params:
        perplexity=settings(STUDY.curation.perplexity, exclude={"thresholds"}) if STUDY.curation.perplexity else None,
    script:
        "../scripts/score_perplexity.py"


rule find_frequent_ngrams:
    input:
        attempts=_ATTEMPTS,
        code=code("find_frequent_ngrams"),
    output:
        table="<results>/curation/{teacher}/frequent_ngrams.parquet",
    log:
        "<logs>/find_frequent_ngrams/{teacher}.log",
    conda:
        "../../envs/curation.yaml"
    threads: 1
    resources:
        mem_mb=1000 if STUDY.miniature else 500000,
        runtime=20 if STUDY.miniature else 24 * 60,
    params:
        ngrams=settings(STUDY.curation.ngrams),
    script:
        "../scripts/find_frequent_ngrams.py"


rule curate_traces:
    input:
        attempts=_ATTEMPTS,
        queries=_QUERIES,
        perplexities=["<results>/curation/{teacher}/perplexities.parquet"] if STUDY.curation.perplexity else [],
        ngrams="<results>/curation/{teacher}/frequent_ngrams.parquet",
        code=code("curate_traces"),
    output:
        table="<results>/curation/{teacher}/traces.parquet",
        ledger="<results>/curation/{teacher}/traces.ledger.parquet",
        dropped="<results>/curation/{teacher}/traces.dropped.parquet",
    log:
        "<logs>/curate_traces/{teacher}.log",
    conda:
        "../../envs/curation.yaml"
    threads: 1
    resources:
        mem_mb=1000 if STUDY.miniature else 200000,
        runtime=20 if STUDY.miniature else 12 * 60,
    params:
        teacher=teacher_settings,
        curation=settings(STUDY.curation, exclude={"controls"}),
    script:
        "../scripts/curate_traces.py"


rule match_datasets:
    input:
        traces=collect("<results>/curation/{teacher}/traces.parquet", teacher=TEACHERS),
        code=code("match_datasets"),
    output:
        tables=expand("<results>/datasets/{{control}}/{teacher}.parquet", teacher=TEACHERS),
        ledgers=expand("<results>/datasets/{{control}}/{teacher}.ledger.parquet", teacher=TEACHERS),
        dropped=expand("<results>/datasets/{{control}}/{teacher}.dropped.parquet", teacher=TEACHERS),
    log:
        "<logs>/match_datasets/{control}.log",
    conda:
        "../../envs/curation.yaml"
    threads: 1
    resources:
        mem_mb=1000 if STUDY.miniature else 200000,
        runtime=20 if STUDY.miniature else 12 * 60,
    params:
        teachers=TEACHERS,
    script:
        "../scripts/match_datasets.py"


rule export_dataset:
    input:
        dataset="<results>/datasets/{control}/{teacher}.parquet",
        ledgers=ledgers_down_to,
        attempts=_ATTEMPTS,
        cases="<results>/verification/audit/cases.parquet",
        again="<results>/verification/audit/sample.parquet",
        code=code("export_dataset"),
    output:
        folder=directory("<results>/export/{control}/{teacher}"),
    log:
        "<logs>/export_dataset/{control}/{teacher}.log",
    conda:
        "../../envs/curation.yaml"
    threads: 1
    resources:
        mem_mb=1000 if STUDY.miniature else 4000,
        runtime=20 if STUDY.miniature else 6 * 60,
    params:
        label=lambda wildcards: STUDY.teachers[wildcards.teacher].label,
        study=study_of_export,
    script:
        "../scripts/export_dataset.py"


rule datasets:
    input:
        collect("<results>/export/{control}/{teacher}", control=STUDY.curation.controls, teacher=TEACHERS),
    localrule: True
