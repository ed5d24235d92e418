# attempts -> traces -> datasets that may be compared -> the released schema.

_ATTEMPTS = collect("<results>/verification/{{teacher}}/{shard}/attempts.parquet", shard=SHARDS)
_QUERIES = collect("<results>/corpus/shards/{shard}.parquet", shard=SHARDS)
_TOKENIZER = folder_files(STUDY.curation.ngrams.tokenizer.model) if STUDY.curation.ngrams.tokenizer.is_local else []
# What counting n-grams depends on: what is done to the frequent ones comes later.
_COUNTED = settings(STUDY.curation.ngrams, exclude={"action"})
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
        environment("generation")
    threads: 1
    resources:
        **ON_GPUS,
        mem_mb=growing(3000 if STUDY.miniature else 200000),
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
        environment("curation")
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(30),
    params:
        scorer=STUDY.curation.perplexity.first if SCORERS else None,
        threshold=lambda wildcards: settings(STUDY.curation.perplexity)["thresholds"].get(wildcards.teacher),
    script:
        "../scripts/set_perplexity_limits.py"


rule count_ngrams:
    input:
        attempts="<results>/verification/{teacher}/{shard}/attempts.parquet",
        tokenizer=_TOKENIZER,
        code=code("count_ngrams"),
    output:
        table=temp("<results>/curation/{teacher}/{shard}/ngram_sketch.parquet"),
    log:
        "<logs>/count_ngrams/{teacher}/{shard}.log",
    conda:
        environment("curation")
    threads: 1
    resources:
        mem_mb=growing(3000),
        runtime=growing(4 * 60),
    params:
        ngrams=_COUNTED,
        shards=len(SHARDS),
    script:
        "../scripts/count_ngrams.py"


rule find_candidate_ngrams:
    input:
        sketches=collect("<results>/curation/{{teacher}}/{shard}/ngram_sketch.parquet", shard=SHARDS),
        code=code("find_candidate_ngrams"),
    output:
        table="<results>/curation/{teacher}/candidate_ngrams.parquet",
    log:
        "<logs>/find_candidate_ngrams/{teacher}.log",
    conda:
        environment("curation")
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(4 * 60),
    params:
        ngrams=_COUNTED,
    script:
        "../scripts/find_candidate_ngrams.py"


rule count_candidate_ngrams:
    input:
        attempts="<results>/verification/{teacher}/{shard}/attempts.parquet",
        candidates="<results>/curation/{teacher}/candidate_ngrams.parquet",
        tokenizer=_TOKENIZER,
        code=code("count_candidate_ngrams"),
    output:
        table="<results>/curation/{teacher}/{shard}/ngram_tallies.parquet",
    log:
        "<logs>/count_candidate_ngrams/{teacher}/{shard}.log",
    conda:
        environment("curation")
    threads: 1
    resources:
        mem_mb=growing(3000),
        runtime=growing(4 * 60),
    params:
        ngrams=_COUNTED,
    script:
        "../scripts/count_candidate_ngrams.py"


rule find_frequent_ngrams:
    input:
        tallies=collect("<results>/curation/{{teacher}}/{shard}/ngram_tallies.parquet", shard=SHARDS),
        code=code("find_frequent_ngrams"),
    output:
        table="<results>/curation/{teacher}/frequent_ngrams.parquet",
    log:
        "<logs>/find_frequent_ngrams/{teacher}.log",
    conda:
        environment("curation")
    threads: 1
    resources:
        mem_mb=growing(3000),
        runtime=growing(2 * 60),
    params:
        ngrams=_COUNTED,
    script:
        "../scripts/find_frequent_ngrams.py"


rule find_contaminated_responses:
    input:
        attempts="<results>/verification/{teacher}/{shard}/attempts.parquet",
        shard="<results>/corpus/shards/{shard}.parquet",
        contamination="<results>/corpus/contamination.parquet",
        benchmarks=expand("<results>/corpus/benchmarks/{benchmark}.parquet", benchmark=BENCHMARK_BLOCKS),
        code=code("find_contaminated_responses"),
    output:
        table="<results>/curation/{teacher}/{shard}/contaminated.parquet",
    log:
        "<logs>/find_contaminated_responses/{teacher}/{shard}.log",
    conda:
        environment("corpus")
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(120),
    params:
        decontaminate=settings(STUDY.corpus.decontaminate),
    script:
        "../scripts/find_contaminated_responses.py"


rule find_duplicate_traces:
    input:
        attempts=_ATTEMPTS,
        code=code("find_duplicate_traces"),
    output:
        digests="<results>/curation/{teacher}/digests.parquet",
        duplicates="<results>/curation/{teacher}/duplicates.parquet",
        repeats="<results>/curation/{teacher}/repeats.parquet",
    log:
        "<logs>/find_duplicate_traces/{teacher}.log",
    conda:
        environment("curation")
    threads: 1
    resources:
        mem_mb=growing(1000 if STUDY.miniature else 4000),
        runtime=growing(20 if STUDY.miniature else 6 * 60),
    script:
        "../scripts/find_duplicate_traces.py"


rule curate_traces:
    input:
        attempts="<results>/verification/{teacher}/{shard}/attempts.parquet",
        queries="<results>/corpus/shards/{shard}.parquet",
        perplexities=(
            [f"<results>/curation/{{teacher}}/{{shard}}/{STUDY.curation.perplexity.first}.perplexities.parquet"]
            if SCORERS
            else []
        ),
        limits=["<results>/curation/{teacher}/perplexity_limits.parquet"] if SCORERS else [],
        ngrams="<results>/curation/{teacher}/frequent_ngrams.parquet",
        tokenizer=_TOKENIZER,
        duplicates=["<results>/curation/{teacher}/duplicates.parquet"] if STUDY.curation.drop_duplicates else [],
        contaminated=(
            "<results>/curation/{teacher}/{shard}/contaminated.parquet"
            if STUDY.curation.contaminated_responses == "drop"
            else []
        ),
        code=code("curate_traces"),
    output:
        table="<results>/curation/{teacher}/{shard}/traces.parquet",
        ledger="<results>/curation/{teacher}/{shard}/traces.ledger.parquet",
        dropped="<results>/curation/{teacher}/{shard}/traces.dropped.parquet",
    log:
        "<logs>/curate_traces/{teacher}/{shard}.log",
    conda:
        environment("curation")
    threads: 1
    resources:
        mem_mb=growing(1000 if STUDY.miniature else 4000),
        runtime=growing(20 if STUDY.miniature else 4 * 60),
    params:
        teacher=teacher_settings,
        curation=settings(STUDY.curation, exclude={"controls", "perplexity"}),
    script:
        "../scripts/curate_traces.py"


rule match_datasets:
    input:
        traces=collect("<results>/curation/{teacher}/{shard}/traces.parquet", teacher=TEACHERS, shard=SHARDS),
        code=code("match_datasets"),
    output:
        tables=expand("<results>/datasets/{{control}}/{teacher}.parquet", teacher=TEACHERS),
        ledgers=expand("<results>/datasets/{{control}}/{teacher}.ledger.parquet", teacher=TEACHERS),
        dropped=expand("<results>/datasets/{{control}}/{teacher}.dropped.parquet", teacher=TEACHERS),
        balance="<results>/datasets/{control}/balance.csv",
    log:
        "<logs>/match_datasets/{control}.log",
    conda:
        environment("curation")
    threads: 1
    resources:
        mem_mb=growing(1000 if STUDY.miniature else 4000),
        runtime=growing(20 if STUDY.miniature else 12 * 60),
    params:
        teachers=TEACHERS,
        control=lambda wildcards: settings(STUDY.curation.controls[wildcards.control]),
        tokenizer=settings(STUDY.curation.ngrams.tokenizer),
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
        environment("curation")
    threads: 1
    resources:
        mem_mb=growing(1000 if STUDY.miniature else 4000),
        runtime=growing(20 if STUDY.miniature else 6 * 60),
    params:
        label=lambda wildcards: STUDY.teachers[wildcards.teacher].label,
        study=study_of_export,
    script:
        "../scripts/export_dataset.py"


rule datasets:
    input:
        collect("<results>/export/{control}/{teacher}", control=CONTROLS, teacher=TEACHERS),
    localrule: True
