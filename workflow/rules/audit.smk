# Published traces -> what they show: `snakemake audit`. No engine, no GPU, no student.

_AUDITED = STUDY.audit.releases if STUDY.audit else {}
_THRESHOLDS = {category: STUDY.verification.threshold_of(category) for category in CATEGORIES}


rule inspect_traces:
    input:
        traces="<results>/generation/{teacher}/traces/{shard}.parquet",
        attempts="<results>/verification/{teacher}/{shard}/attempts.parquet",
        shard="<results>/corpus/shards/{shard}.parquet",
        code=code("inspect_traces"),
    output:
        table="<results>/audit/{teacher}/{shard}.parquet",
    log:
        "<logs>/inspect_traces/{teacher}/{shard}.log",
    conda:
        environment("corpus")
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(120),
    params:
        thresholds=_THRESHOLDS,
    script:
        "../scripts/inspect_traces.py"


rule summarise_audit:
    input:
        inspected=collect("<results>/audit/{teacher}/{shard}.parquet", teacher=TEACHERS, shard=SHARDS),
        quoted=collect("<results>/curation/{teacher}/{shard}/contaminated.parquet", teacher=TEACHERS, shard=SHARDS),
        layouts=collect("<results>/generation/{teacher}/traces.layouts.parquet", teacher=TEACHERS),
        ledgers=collect("<results>/generation/{teacher}/traces.ledger.parquet", teacher=TEACHERS),
        duplicates="<results>/corpus/duplicates.parquet",
        contamination="<results>/corpus/contamination.parquet",
        queries=collect("<results>/corpus/shards/{shard}.parquet", shard=SHARDS),
        benchmarks=expand("<results>/corpus/benchmarks/{benchmark}.parquet", benchmark=BENCHMARK_BLOCKS),
        code=code("summarise_audit"),
    output:
        expand("<results>/statistics/audit/{table}.csv", table=AUDIT_TABLES),
    log:
        "<logs>/summarise_audit.log",
    conda:
        environment("corpus")
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(120),
    params:
        releases={
            name: {"sources": [f"{name}_{category}" for category in release.files], "model": release.model}
            for name, release in _AUDITED.items()
        },
        settings={"thresholds": _THRESHOLDS, "decontaminate": settings(STUDY.corpus.decontaminate)},
    script:
        "../scripts/summarise_audit.py"


rule audit:
    input:
        audit_report,
    localrule: True
