# Sources and benchmarks -> queries in shards: import, clean, deduplicate, decontaminate, shard.

SOURCES = STUDY.corpus.sources
IMPORTED = [f"<results>/corpus/imported/{source}.parquet" for source in SOURCES]
ENCODES_WITH_MODEL = STUDY.corpus.decontaminate.embedder not in (None, "hashed_words")


if STUDY.miniature:

    MADE_SOURCES = {
        name: source
        for name, source in SOURCES.items()
        if any(path.startswith(f"{STUDY.results}/miniature/sources/") for path in source.files)
    }

    rule make_miniature_corpus:
        input:
            code=code("make_miniature_corpus"),
        output:
            sources=[source.path for source in MADE_SOURCES.values()],
            planted="<results>/miniature/planted.json",
        log:
            "<logs>/make_miniature_corpus.log",
        conda:
            environment("corpus")
        threads: 1
        resources:
            mem_mb=growing(1000),
            runtime=growing(10),
        params:
            sources={name: source.category for name, source in MADE_SOURCES.items()},
            queries=settings(STUDY.miniature)["queries"],
            benchmarks=STUDY.miniature.problems,
            planted=STUDY.miniature.planted,
            seed=STUDY.miniature.seed,
        script:
            "../scripts/make_miniature_corpus.py"

    rule make_miniature_benchmarks:
        input:
            code=code("make_miniature_benchmarks"),
        output:
            expand("<results>/miniature/benchmarks/{benchmark}.jsonl", benchmark=STUDY.miniature.problems),
        log:
            "<logs>/make_miniature_benchmarks.log",
        conda:
            environment("corpus")
        threads: 1
        resources:
            mem_mb=growing(1000),
            runtime=growing(10),
        params:
            problems=STUDY.miniature.problems,
        script:
            "../scripts/make_miniature_benchmarks.py"


rule import_source:
    input:
        file=lambda wildcards: [from_here(Path(locate(path))) for path in SOURCES[wildcards.source].files],
        code=code("import_source"),
    output:
        table="<results>/corpus/imported/{source}.parquet",
        ledger="<results>/corpus/imported/{source}.ledger.parquet",
        dropped="<results>/corpus/imported/{source}.dropped.parquet",
    log:
        "<logs>/import_source/{source}.log",
    cache: True
    conda:
        environment("corpus")
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(240),
    params:
        name=lambda wildcards: wildcards.source,
        source=lambda wildcards: settings(SOURCES[wildcards.source], exclude={"guess"}),
    script:
        "../scripts/import_source.py"


rule import_benchmark:
    input:
        file=lambda wildcards: BENCHMARK_BLOCKS[wildcards.benchmark].path or [],
        code=code("import_benchmark"),
    output:
        table="<results>/corpus/benchmarks/{benchmark}.parquet",
    log:
        "<logs>/import_benchmark/{benchmark}.log",
    wildcard_constraints:
        benchmark=one_of(name for name, block in BENCHMARK_BLOCKS.items() if block.task is None),
    cache: True
    conda:
        environment("corpus")
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        name=lambda wildcards: wildcards.benchmark,
        benchmark=lambda wildcards: settings(
            BENCHMARK_BLOCKS[wildcards.benchmark], exclude={"label", "samples", "task"}
        ),
    script:
        "../scripts/import_benchmark.py"


rule import_task:
    input:
        file=lambda wildcards: BENCHMARK_BLOCKS[wildcards.benchmark].path or [],
        script=from_here(WORKFLOW / "scripts" / "import_task.py"),
        code=code("import_task"),
    output:
        table="<results>/corpus/benchmarks/{benchmark}.parquet",
    log:
        "<logs>/import_task/{benchmark}.log",
    wildcard_constraints:
        benchmark=one_of(name for name, block in BENCHMARK_BLOCKS.items() if block.task is not None),
    cache: True
    conda:
        environment("evaluation")
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        name=lambda wildcards: wildcards.benchmark,
        settings=task_settings,
    shell:
        evaluation_python("import_task") + " {input.script:q} --benchmark {params.name:q}"
        " --settings {params.settings:q} --table {output.table:q} --log {log:q}"


rule clean_queries:
    input:
        imported=IMPORTED,
        code=code("clean_queries"),
    output:
        table="<results>/corpus/cleaned.parquet",
        ledger="<results>/corpus/cleaned.ledger.parquet",
        dropped="<results>/corpus/cleaned.dropped.parquet",
    log:
        "<logs>/clean_queries.log",
    conda:
        environment("corpus")
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(60),
    params:
        clean=settings(STUDY.corpus.clean),
    script:
        "../scripts/clean_queries.py"


rule deduplicate_queries:
    input:
        imported=IMPORTED,
        cleaned="<results>/corpus/cleaned.parquet",
        code=code("deduplicate_queries"),
    output:
        table="<results>/corpus/deduplicated.parquet",
        duplicates="<results>/corpus/duplicates.parquet",
        ledger="<results>/corpus/deduplicated.ledger.parquet",
        dropped="<results>/corpus/deduplicated.dropped.parquet",
    log:
        "<logs>/deduplicate_queries.log",
    conda:
        environment("corpus")
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        sources=list(SOURCES),
        deduplicate=settings(STUDY.corpus.deduplicate),
    script:
        "../scripts/deduplicate_queries.py"


rule decontaminate_queries:
    input:
        imported=IMPORTED,
        deduplicated="<results>/corpus/deduplicated.parquet",
        benchmarks=expand("<results>/corpus/benchmarks/{benchmark}.parquet", benchmark=BENCHMARK_BLOCKS),
        code=code("decontaminate_queries"),
    output:
        table="<results>/corpus/decontaminated.parquet",
        contamination="<results>/corpus/contamination.parquet",
        sweep="<results>/corpus/contamination_sweep.parquet",
        ledger="<results>/corpus/decontaminated.ledger.parquet",
        dropped="<results>/corpus/decontaminated.dropped.parquet",
    log:
        "<logs>/decontaminate_queries.log",
    conda:
        environment("corpus")
    threads: 8 if ENCODES_WITH_MODEL else 1
    resources:
        mem_mb=growing(32000 if ENCODES_WITH_MODEL else 2000),
        runtime=growing(24 * 60 if ENCODES_WITH_MODEL else 60),
        gpu=1 if ENCODES_WITH_MODEL else 0,
        nodes=1,
    params:
        decontaminate=settings(STUDY.corpus.decontaminate),
    script:
        "../scripts/decontaminate_queries.py"


rule shard_corpus:
    input:
        imported=IMPORTED,
        queries="<results>/corpus/decontaminated.parquet",
        code=code("shard_corpus"),
    output:
        shards=expand("<results>/corpus/shards/{shard}.parquet", shard=SHARDS),
    log:
        "<logs>/shard_corpus.log",
    conda:
        environment("corpus")
    threads: 1
    resources:
        mem_mb=growing(lambda input: max(1000, 20 * input.size_mb)),
        runtime=growing(60),
    script:
        "../scripts/shard_corpus.py"


rule corpus:
    input:
        collect("<results>/corpus/shards/{shard}.parquet", shard=SHARDS),
    localrule: True
