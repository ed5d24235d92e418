# attempts -> traces -> datasets that may be compared -> the released schema.

_ATTEMPTS = collect("<results>/verification/{{teacher}}/{shard}/attempts.parquet", shard=SHARDS)
_QUERIES = collect("<results>/corpus/shards/{shard}.parquet", shard=SHARDS)
# Those of the scorer that filters; without one traces have no perplexity and none is dropped for it.
_FIRST_PERPLEXITIES = (
    collect(
        "<results>/curation/{{teacher}}/{shard}/{scorer}.perplexities.parquet",
        shard=SHARDS,
        scorer=STUDY.curation.perplexity.first,
    )
    if SCORERS
    else []
)


rule score_perplexity:
    input:
        attempts="<results>/verification/{teacher}/{shard}/attempts.parquet",
        queries="<results>/corpus/shards/{shard}.parquet",
        model=scorer_files,
        code=code("score_perplexity"),
    output:
        table="<results>/curation/{teacher}/{shard}/{scorer}.perplexities.parquet",
    log:
        "<logs>/score_perplexity/{teacher}/{shard}/{scorer}.log",
    conda:
        "../../envs/generation.yaml"
    threads: 1
    resources:
        mem_mb=3000 if STUDY.miniature else 200000,
        runtime=30 if STUDY.miniature else 24 * 60,
        gpu=lambda wildcards: 0 if STUDY.miniature else SCORERS[wildcards.scorer].devices,
    params:
        scorer=lambda wildcards: scorer_block(wildcards.scorer),
        perplexity=settings(STUDY.curation.perplexity, exclude={"scorers", "thresholds"}) if SCORERS else None,
        store=STUDY.store,
    script:
        "../scripts/score_perplexity.py"


rule set_perplexity_limits:
    input:
        perplexities=_FIRST_PERPLEXITIES,
        code=code("set_perplexity_limits"),
    output:
        table="<results>/curation/{teacher}/perplexity_limits.parquet",
    log:
        "<logs>/set_perplexity_limits/{teacher}.log",
    conda:
        "../../envs/curation.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=30,
    params:
        scorer=STUDY.curation.perplexity.first if SCORERS else None,
        threshold=lambda wildcards: settings(STUDY.curation.perplexity)["thresholds"].get(wildcards.teacher),
    script:
        "../scripts/set_perplexity_limits.py"


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
        perplexities=_FIRST_PERPLEXITIES,
        limits=["<results>/curation/{teacher}/perplexity_limits.parquet"] if SCORERS else [],
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
        curation=settings(STUDY.curation, exclude={"controls", "perplexity"}),
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
        code=code("export_dataset"),
    output:
        folder=directory("<results>/export/{control}/{teacher}"),
    log:
        "<logs>/export_dataset/{control}/{teacher}.log",
    conda:
        "../../envs/curation.yaml"
    threads: 1
    resources:
        mem_mb=1000 if STUDY.miniature else 32000,
        runtime=20 if STUDY.miniature else 6 * 60,
    params:
        label=lambda wildcards: STUDY.teachers[wildcards.teacher].label,
        study=STUDY.study,
    script:
        "../scripts/export_dataset.py"


rule datasets:
    input:
        collect("<results>/export/{control}/{teacher}", control=STUDY.curation.controls, teacher=TEACHERS),
    localrule: True
