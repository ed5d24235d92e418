# Measures per trace, summaries and paired comparisons of teachers and students, the ledger of the whole study.


# Every ledger the configured study writes, in the order the data flows.
LEDGERS = [
    *collect("<results>/corpus/imported/{source}.ledger.parquet", source=list(STUDY.corpus.sources)),
    "<results>/corpus/cleaned.ledger.parquet",
    "<results>/corpus/deduplicated.ledger.parquet",
    "<results>/corpus/decontaminated.ledger.parquet",
    *collect(
        "<results>/generation/{teacher}/traces.ledger.parquet",
        teacher=[name for name, teacher in STUDY.teachers.items() if teacher.engine == "dataset"],
    ),
    *collect("<results>/verification/{teacher}/{shard}/attempts.ledger.parquet", teacher=TEACHERS, shard=SHARDS),
]
if not STUDY.audit:
    LEDGERS += [
        *collect("<results>/curation/{teacher}/{shard}/traces.ledger.parquet", teacher=TEACHERS, shard=SHARDS),
        *collect(
            "<results>/datasets/{control}/{teacher}.ledger.parquet",
            control=CONTROLS,
            teacher=TEACHERS,
        ),
        *STUDENT_FILES["rows.ledger.parquet"],
    ]


SHOWN_DATASETS = collect("<results>/datasets/{control}/{teacher}.parquet", control=SHOWN, teacher=TEACHERS)


rule measure_traces:
    input:
        traces=collect("<results>/curation/{{teacher}}/{shard}/traces.parquet", shard=SHARDS),
        code=code("measure_traces"),
    output:
        "<results>/statistics/trace_measures/{teacher}.parquet",
    log:
        "<logs>/measure_traces/{teacher}.log",
    conda:
        environment("statistics")
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(480),
    script:
        "../scripts/measure_traces.py"


rule summarise_teachers:
    input:
        collected=collect("<results>/verification/{teacher}/{shard}/attempts.parquet", teacher=TEACHERS, shard=SHARDS),
        queries=collect("<results>/corpus/shards/{shard}.parquet", shard=SHARDS),
        measures=collect("<results>/statistics/trace_measures/{teacher}.parquet", teacher=TEACHERS),
        code=code("summarise_teachers"),
    output:
        "<results>/statistics/teachers.csv",
    log:
        "<logs>/summarise_teachers.log",
    conda:
        environment("statistics")
    threads: 1
    resources:
        mem_mb=growing(16000),
        runtime=growing(60),
    params:
        teachers=TEACHERS,
    script:
        "../scripts/summarise_teachers.py"


rule summarise_perplexities:
    input:
        perplexities=collect(
            "<results>/curation/{teacher}/{shard}/{scorer}.perplexities.parquet",
            teacher=TEACHERS,
            shard=SHARDS,
            scorer=list(SCORERS),
        ),
        limits=collect("<results>/curation/{teacher}/perplexity_limits.parquet", teacher=TEACHERS) if SCORERS else [],
        code=code("summarise_perplexities"),
    output:
        "<results>/statistics/perplexities.csv",
    log:
        "<logs>/summarise_perplexities.log",
    conda:
        environment("statistics")
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(60),
    params:
        teachers=TEACHERS,
        scorers={name: scorer.model for name, scorer in SCORERS.items()},
    script:
        "../scripts/summarise_perplexities.py"


rule summarise_costs:
    input:
        collected=rules.summarise_teachers.input.collected,
        queries=rules.summarise_teachers.input.queries,
        code=code("summarise_costs"),
    output:
        "<results>/statistics/costs.csv",
    log:
        "<logs>/summarise_costs.log",
    conda:
        environment("statistics")
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        prices=PRICES,
        statistics=settings(STUDY.statistics),
    script:
        "../scripts/summarise_costs.py"


rule summarise_attempts:
    input:
        collected=rules.summarise_teachers.input.collected,
        queries=rules.summarise_teachers.input.queries,
        code=code("summarise_attempts"),
    output:
        survival="<results>/statistics/attempts_survival.csv",
        summary="<results>/statistics/attempts_summary.csv",
    log:
        "<logs>/summarise_attempts.log",
    conda:
        environment("statistics")
    threads: 1
    resources:
        mem_mb=growing(8000),
        runtime=growing(60),
    params:
        teachers=TEACHERS,
        statistics=settings(STUDY.statistics),
    script:
        "../scripts/summarise_attempts.py"


rule summarise_verdicts:
    input:
        collected=rules.summarise_teachers.input.collected,
        queries=rules.summarise_teachers.input.queries,
        checks=collect("<results>/verification/references/{shard}.parquet", shard=SHARDS),
        cases="<results>/verification/audit/cases.parquet",
        again="<results>/verification/audit/sample.parquet",
        judged=collect("<results>/verification/audit/judged/{judge}.parquet", judge=STUDY.verification.asked_again),
        code=code("summarise_verdicts"),
    output:
        verdicts="<results>/statistics/verdicts.csv",
        error_rates="<results>/statistics/error_rates.csv",
        agreement="<results>/statistics/agreement.csv",
        disagreements="<results>/statistics/disagreements.csv",
        references="<results>/statistics/references.csv",
        contested="<results>/statistics/contested.csv",
        thresholds="<results>/statistics/thresholds.csv",
        score_quantiles="<results>/statistics/score_quantiles.csv",
    log:
        "<logs>/summarise_verdicts.log",
    conda:
        environment("statistics")
    threads: 1
    resources:
        mem_mb=growing(16000),
        runtime=growing(60),
    params:
        teachers=TEACHERS,
        confidence=STUDY.statistics.confidence,
    script:
        "../scripts/summarise_verdicts.py"


rule compare_teachers:
    input:
        collected=rules.summarise_teachers.input.collected,
        queries=rules.summarise_teachers.input.queries,
        measures=rules.summarise_teachers.input.measures,
        # The first scorer's are among the measures.
        perplexities=collect(
            "<results>/curation/{teacher}/{shard}/{scorer}.perplexities.parquet",
            teacher=TEACHERS,
            shard=SHARDS,
            scorer=list(SCORERS)[1:],
        ),
        code=code("compare_teachers"),
    output:
        "<results>/statistics/teacher_comparison.csv",
    log:
        "<logs>/compare_teachers.log",
    conda:
        environment("statistics")
    threads: 1
    resources:
        mem_mb=growing(16000),
        runtime=growing(120),
    params:
        teachers=TEACHERS,
        scorers=list(SCORERS)[1:],
        prices=PRICES,
        statistics=settings(STUDY.statistics),
    script:
        "../scripts/compare_teachers.py"


if STUDY.training:

    rule summarise_training:
        input:
            summaries=STUDENT_FILES["summary.json"],
            preflights=STUDENT_FILES["preflight.json"],
            ledgers=STUDENT_FILES["rows.ledger.parquet"],
            code=code("summarise_training"),
        output:
            "<results>/statistics/training.csv",
        log:
            "<logs>/summarise_training.log",
        conda:
            environment("statistics")
        threads: 1
        resources:
            mem_mb=growing(1000),
            runtime=growing(10),
        script:
            "../scripts/summarise_training.py"

    rule compare_students:
        input:
            scored=collect(
                "<results>/evaluation/{control}/{teacher}/{seed}/{benchmark}.scored.parquet",
                control=CONTROLS,
                teacher=TEACHERS,
                seed=STUDY.training.seeds,
                benchmark=list(STUDY.evaluation.benchmarks),
            ),
            code=code("compare_students"),
        output:
            scores="<results>/statistics/scores.csv",
            comparison="<results>/statistics/student_comparison.csv",
            failures="<results>/statistics/failure_comparison.csv",
        log:
            "<logs>/compare_students.log",
        conda:
            environment("statistics")
        threads: 1
        resources:
            mem_mb=growing(4000),
            runtime=growing(60),
        params:
            controls=CONTROLS,
            teachers={name: teacher.label for name, teacher in STUDY.teachers.items()},
            benchmarks={name: benchmark.label for name, benchmark in STUDY.evaluation.benchmarks.items()},
            statistics=settings(STUDY.statistics),
        script:
            "../scripts/compare_students.py"

    rule summarise_students:
        input:
            scored=rules.compare_students.input.scored,
            code=code("summarise_students"),
        output:
            score_by_cap="<results>/statistics/score_by_cap.csv",
            adaptivity="<results>/statistics/adaptivity.csv",
            variance_components="<results>/statistics/variance_components.csv",
        log:
            "<logs>/summarise_students.log",
        conda:
            environment("statistics")
        threads: 1
        resources:
            mem_mb=growing(4000),
            runtime=growing(60),
        params:
            controls=CONTROLS,
            teachers=TEACHERS,
            benchmarks=list(STUDY.evaluation.benchmarks),
            max_tokens=STUDY.evaluation.sampling.max_tokens,
            statistics=settings(STUDY.statistics),
        script:
            "../scripts/summarise_students.py"

    rule split_scores:
        input:
            scored=rules.compare_students.input.scored,
            contamination="<results>/corpus/contamination.parquet",
            contaminated=collect(
                "<results>/curation/{teacher}/{shard}/contaminated.parquet", teacher=TEACHERS, shard=SHARDS
            ),
            code=code("split_scores"),
        output:
            scores="<results>/statistics/scores_by_contamination.csv",
            comparison="<results>/statistics/uncontaminated_comparison.csv",
        log:
            "<logs>/split_scores.log",
        conda:
            environment("statistics")
        threads: 1
        resources:
            mem_mb=growing(4000),
            runtime=growing(60),
        params:
            controls=CONTROLS,
            teachers=TEACHERS,
            benchmarks=list(STUDY.evaluation.benchmarks),
            statistics=settings(STUDY.statistics),
        script:
            "../scripts/split_scores.py"

    rule compare_controls:
        input:
            scored=rules.compare_students.input.scored,
            comparison="<results>/statistics/student_comparison.csv",
            code=code("compare_controls"),
        output:
            gaps="<results>/statistics/gap_by_control.csv",
            conclusions="<results>/statistics/conclusions.md",
        log:
            "<logs>/compare_controls.log",
        conda:
            environment("statistics")
        threads: 1
        resources:
            mem_mb=growing(4000),
            runtime=growing(60),
        params:
            controls={name: control.kind for name, control in STUDY.curation.controls.items()},
            benchmarks=list(STUDY.evaluation.benchmarks),
            statistics=settings(STUDY.statistics),
        script:
            "../scripts/compare_controls.py"


rule summarise_duplicates:
    input:
        digests=collect("<results>/curation/{teacher}/digests.parquet", teacher=TEACHERS),
        duplicates=collect("<results>/curation/{teacher}/duplicates.parquet", teacher=TEACHERS),
        repeats=collect("<results>/curation/{teacher}/repeats.parquet", teacher=TEACHERS),
        code=code("summarise_duplicates"),
    output:
        "<results>/statistics/duplicates.csv",
    log:
        "<logs>/summarise_duplicates.log",
    conda:
        environment("statistics")
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        teachers=TEACHERS,
    script:
        "../scripts/summarise_duplicates.py"


rule reconcile_ledger:
    input:
        ledgers=LEDGERS,
        dropped=[ledger.replace(".ledger.", ".dropped.") for ledger in LEDGERS],
        tables=(
            []
            if STUDY.audit
            else [
                *collect("<results>/curation/{teacher}/{shard}/traces.parquet", teacher=TEACHERS, shard=SHARDS),
                *collect("<results>/datasets/{control}/{teacher}.parquet", control=CONTROLS, teacher=TEACHERS),
            ]
        ),
        code=code("reconcile_ledger"),
    output:
        "<results>/statistics/ledger.csv",
    log:
        "<logs>/reconcile_ledger.log",
    conda:
        environment("statistics")
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    script:
        "../scripts/reconcile_ledger.py"


rule summarise_datasets:
    input:
        measures=collect("<results>/statistics/trace_measures/{teacher}.parquet", teacher=TEACHERS),
        datasets=SHOWN_DATASETS,
        code=code("summarise_datasets"),
    output:
        categories="<results>/statistics/datasets/categories.csv",
        lengths="<results>/statistics/datasets/lengths.csv",
        boxes="<results>/statistics/datasets/boxes.csv",
    log:
        "<logs>/summarise_datasets.log",
    conda:
        environment("figures")
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        teachers=TEACHERS,
        width=STUDY.figures.length_bin,
        bins=STUDY.figures.length_bins,
    script:
        "../scripts/summarise_datasets.py"


rule choose_examples:
    input:
        contamination="<results>/corpus/contamination.parquet",
        quoted=(
            collect("<results>/curation/{teacher}/{shard}/contaminated.parquet", teacher=TEACHERS, shard=SHARDS)
            if BENCHMARK_BLOCKS and not STUDY.audit
            else []
        ),
        queries=collect("<results>/corpus/shards/{shard}.parquet", shard=SHARDS),
        planted="<results>/miniature/planted.json" if STUDY.miniature else [],
        collected=collect("<results>/verification/{teacher}/{shard}/attempts.parquet", teacher=TEACHERS, shard=SHARDS),
        datasets=[] if STUDY.audit else SHOWN_DATASETS,
        code=code("choose_examples"),
    output:
        "<results>/statistics/examples.json",
    log:
        "<logs>/choose_examples.log",
    conda:
        environment("statistics")
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        teachers=TEACHERS,
    script:
        "../scripts/choose_examples.py"
