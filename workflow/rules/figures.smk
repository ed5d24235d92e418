# The paper's figures and tables from this run, beside its published values; ours; and the report.

PUBLISHED = WORKFLOW.parent / "config" / "published"
LOOKS = {name: {"label": teacher.label, "colour": teacher.colour} for name, teacher in STUDY.teachers.items()}
LABELS = {name: teacher.label for name, teacher in STUDY.teachers.items()}
ROLES = (
    {name: {"label": b.label, "role": b.role} for name, b in STUDY.evaluation.benchmarks.items()}
    if STUDY.evaluation
    else {}
)

# An audit shows traces as they were published, not what curation makes of them.
TRACE_FIGURES = [] if STUDY.audit else ["category_shares", "length_histogram", "lengths", "perplexities", "attempts"]
CORPUS_FIGURES = ["ledger", "contamination"]
VERDICT_FIGURES = ["verdicts", "thresholds"]
STUDENT_FIGURES = ["scores", "training_loss", "differences"] if STUDY.training else []
FIGURES = [*STUDENT_FIGURES, *TRACE_FIGURES, *VERDICT_FIGURES, *CORPUS_FIGURES]
PUBLISHED_FIGURES = [f"figure{number}" for number in range(1, 7)]
TABLES = ["table1", "table2"] if STUDY.training else []
AUDITS = [
    "verdicts",
    "error_rates",
    "agreement",
    "disagreements",
    "references",
    "contested",
    "thresholds",
    "score_quantiles",
]
STUDENT_TABLES = [
    "gap_by_control",
    "score_by_cap",
    "adaptivity",
    "variance_components",
    "scores_by_contamination",
    "uncontaminated_comparison",
]
STATISTICS = [
    *(
        []
        if STUDY.audit
        else [
            "teachers",
            "costs",
            "perplexities",
            "teacher_comparison",
            "attempts_survival",
            "attempts_summary",
            "duplicates",
            "datasets/categories",
            "datasets/lengths",
            "datasets/boxes",
        ]
    ),
    "ledger",
    *AUDITS,
    *(["training", "scores", "student_comparison", "failure_comparison", *STUDENT_TABLES] if STUDY.training else []),
    *(["model_scores"] if EVALUATED else []),
]


rule draw_category_shares:
    input:
        categories="<results>/statistics/datasets/categories.csv",
        published=from_here(PUBLISHED / "fig2_shares.csv"),
        code=code("draw_category_shares"),
    output:
        svg=report(
            "<results>/figures/category_shares.svg",
            caption="../report/captions/category_shares.rst",
            category="Traces",
            labels={"figure": "Figure 2. Shares of the categories"},
        ),
        png="<results>/figures/category_shares.png",
        pdf="<results>/figures/category_shares.pdf",
        csv="<results>/figures/category_shares.csv",
    log:
        "<logs>/draw_category_shares.log",
    conda:
        environment("figures")
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(15),
    params:
        teachers=lambda wildcards: LABELS,
    script:
        "../scripts/draw_category_shares.py"


rule draw_length_histogram:
    input:
        lengths="<results>/statistics/datasets/lengths.csv",
        published=from_here(PUBLISHED / "fig3_math_lengths.csv"),
        code=code("draw_length_histogram"),
    output:
        svg=report(
            "<results>/figures/length_histogram.svg",
            caption="../report/captions/length_histogram.rst",
            category="Traces",
            labels={"figure": "Figure 3. Lengths of mathematics traces"},
        ),
        png="<results>/figures/length_histogram.png",
        pdf="<results>/figures/length_histogram.pdf",
        csv="<results>/figures/length_histogram.csv",
    log:
        "<logs>/draw_length_histogram.log",
    conda:
        environment("figures")
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(15),
    params:
        teachers=lambda wildcards: LOOKS,
    script:
        "../scripts/draw_length_histogram.py"


rule draw_lengths:
    input:
        boxes="<results>/statistics/datasets/boxes.csv",
        published=from_here(PUBLISHED / "fig4_lengths.csv"),
        code=code("draw_lengths"),
    output:
        svg=report(
            "<results>/figures/lengths.svg",
            caption="../report/captions/lengths.rst",
            category="Traces",
            labels={"figure": "Figure 4. Trace lengths"},
        ),
        png="<results>/figures/lengths.png",
        pdf="<results>/figures/lengths.pdf",
        csv="<results>/figures/lengths.csv",
    log:
        "<logs>/draw_lengths.log",
    conda:
        environment("figures")
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(15),
    params:
        teachers=lambda wildcards: LOOKS,
    script:
        "../scripts/draw_lengths.py"


rule draw_perplexities:
    input:
        boxes="<results>/statistics/datasets/boxes.csv",
        published=from_here(PUBLISHED / "fig5_perplexity.csv"),
        code=code("draw_perplexities"),
    output:
        svg=report(
            "<results>/figures/perplexities.svg",
            caption="../report/captions/perplexities.rst",
            category="Traces",
            labels={"figure": "Figure 5. Perplexity of the traces"},
        ),
        png="<results>/figures/perplexities.png",
        pdf="<results>/figures/perplexities.pdf",
        csv="<results>/figures/perplexities.csv",
    log:
        "<logs>/draw_perplexities.log",
    conda:
        environment("figures")
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(15),
    params:
        teachers=lambda wildcards: LOOKS,
    script:
        "../scripts/draw_perplexities.py"


rule draw_ledger:
    input:
        ledger="<results>/statistics/ledger.csv",
        code=code("draw_ledger"),
    output:
        svg=report(
            "<results>/figures/ledger.svg",
            caption="../report/captions/ledger.rst",
            category="Corpus",
            labels={"figure": "From rows to datasets"},
        ),
        png="<results>/figures/ledger.png",
        pdf="<results>/figures/ledger.pdf",
        csv="<results>/figures/ledger.csv",
    log:
        "<logs>/draw_ledger.log",
    conda:
        environment("figures")
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(15),
    params:
        teachers=lambda wildcards: LOOKS,
    script:
        "../scripts/draw_ledger.py"


rule draw_verdicts:
    input:
        verdicts="<results>/statistics/verdicts.csv",
        code=code("draw_verdicts"),
    output:
        svg=report(
            "<results>/figures/verdicts.svg",
            caption="../report/captions/verdicts.rst",
            category="Verdicts",
            labels={"figure": "Verdicts"},
        ),
        png="<results>/figures/verdicts.png",
        pdf="<results>/figures/verdicts.pdf",
        csv="<results>/figures/verdicts.csv",
    log:
        "<logs>/draw_verdicts.log",
    conda:
        environment("figures")
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(15),
    params:
        teachers=lambda wildcards: LOOKS,
        categories=CATEGORIES,
    script:
        "../scripts/draw_verdicts.py"


rule draw_attempts:
    input:
        survival="<results>/statistics/attempts_survival.csv",
        code=code("draw_attempts"),
    output:
        svg=report(
            "<results>/figures/attempts.svg",
            caption="../report/captions/attempts.rst",
            category="Traces",
            labels={"figure": "Attempts to a first pass"},
        ),
        png="<results>/figures/attempts.png",
        pdf="<results>/figures/attempts.pdf",
        csv="<results>/figures/attempts.csv",
    log:
        "<logs>/draw_attempts.log",
    conda:
        environment("figures")
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(15),
    params:
        teachers=lambda wildcards: LOOKS,
        categories=CATEGORIES,
    script:
        "../scripts/draw_attempts.py"


rule draw_thresholds:
    input:
        sweep="<results>/statistics/thresholds.csv",
        code=code("draw_thresholds"),
    output:
        svg=report(
            "<results>/figures/thresholds.svg",
            caption="../report/captions/thresholds.rst",
            category="Verdicts",
            labels={"figure": "Scores, and what other thresholds would pass"},
        ),
        png="<results>/figures/thresholds.png",
        pdf="<results>/figures/thresholds.pdf",
        csv="<results>/figures/thresholds.csv",
    log:
        "<logs>/draw_thresholds.log",
    conda:
        environment("figures")
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(15),
    params:
        teachers=lambda wildcards: LOOKS,
        categories=CATEGORIES,
        thresholds={category: STUDY.verification.threshold_of(category) for category in CATEGORIES},
    script:
        "../scripts/draw_thresholds.py"


rule draw_contamination:
    input:
        sweep="<results>/corpus/contamination_sweep.parquet",
        code=code("draw_contamination"),
    output:
        svg=report(
            "<results>/figures/contamination.svg",
            caption="../report/captions/contamination.rst",
            category="Corpus",
            labels={"figure": "Thresholds of decontamination"},
        ),
        png="<results>/figures/contamination.png",
        pdf="<results>/figures/contamination.pdf",
        csv="<results>/figures/contamination.csv",
    log:
        "<logs>/draw_contamination.log",
    conda:
        environment("figures")
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(15),
    params:
        thresholds=STUDY.corpus.decontaminate.model_dump(include={"containment", "similarity"}),
    script:
        "../scripts/draw_contamination.py"


if STUDY.training:

    rule draw_scores:
        input:
            scores="<results>/statistics/scores.csv",
            models="<results>/statistics/model_scores.csv" if EVALUATED else [],
            figure=from_here(PUBLISHED / "fig1_scores.csv"),
            table=from_here(PUBLISHED / "table1_scores.csv"),
            code=code("draw_scores"),
        output:
            svg=report(
                "<results>/figures/scores.svg",
                caption="../report/captions/scores.rst",
                category="Students",
                labels={"figure": "Figure 1. Pass@1 per benchmark"},
            ),
            png="<results>/figures/scores.png",
            pdf="<results>/figures/scores.pdf",
            csv="<results>/figures/scores.csv",
        log:
            "<logs>/draw_scores.log",
        conda:
            environment("figures")
        threads: 1
        resources:
            mem_mb=growing(1000),
            runtime=growing(15),
        params:
            control=SHOWN,
            benchmarks=lambda wildcards: ROLES,
            teachers=lambda wildcards: LOOKS,
            models=lambda wildcards: {
                name: {"label": model.label, "colour": model.colour} for name, model in EVALUATED.items()
            },
        script:
            "../scripts/draw_scores.py"

    rule draw_training_loss:
        input:
            logs=collect(
                "<results>/training/{control}/{teacher}/{seed}/log.parquet",
                control=SHOWN,
                teacher=TEACHERS,
                seed=STUDY.training.seeds,
            ),
            published=from_here(PUBLISHED / "fig6_loss.csv"),
            code=code("draw_training_loss"),
        output:
            svg=report(
                "<results>/figures/training_loss.svg",
                caption="../report/captions/training_loss.rst",
                category="Students",
                labels={"figure": "Figure 6. Training loss"},
            ),
            png="<results>/figures/training_loss.png",
            pdf="<results>/figures/training_loss.pdf",
            csv="<results>/figures/training_loss.csv",
        log:
            "<logs>/draw_training_loss.log",
        conda:
            environment("figures")
        threads: 1
        resources:
            mem_mb=growing(1000),
            runtime=growing(15),
        params:
            teachers=lambda wildcards: LOOKS,
            smoothing=STUDY.figures.smoothing,
        script:
            "../scripts/draw_training_loss.py"

    rule draw_differences:
        input:
            comparison="<results>/statistics/student_comparison.csv",
            code=code("draw_differences"),
        output:
            svg=report(
                "<results>/figures/differences.svg",
                caption="../report/captions/differences.rst",
                category="Students",
                labels={"figure": "Paired differences between students"},
            ),
            png="<results>/figures/differences.png",
            pdf="<results>/figures/differences.pdf",
            csv="<results>/figures/differences.csv",
        log:
            "<logs>/draw_differences.log",
        conda:
            environment("figures")
        threads: 1
        resources:
            mem_mb=growing(1000),
            runtime=growing(15),
        params:
            control=SHOWN,
            benchmarks=lambda wildcards: {name: benchmark["label"] for name, benchmark in ROLES.items()},
            teachers=lambda wildcards: LOOKS,
            confidence=STUDY.statistics.confidence,
        script:
            "../scripts/draw_differences.py"

    rule write_tables:
        input:
            scores="<results>/statistics/scores.csv",
            table1=from_here(PUBLISHED / "table1_scores.csv"),
            table2=from_here(PUBLISHED / "table2_lengths.csv"),
            code=code("write_tables"),
        output:
            table1_csv=report(
                "<results>/tables/table1.csv",
                caption="../report/captions/tables.rst",
                category="Students",
                labels={"figure": "Table 1. Pass@1"},
            ),
            table1_md="<results>/tables/table1.md",
            table2_csv=report(
                "<results>/tables/table2.csv",
                caption="../report/captions/tables.rst",
                category="Students",
                labels={"figure": "Table 2. Output tokens"},
            ),
            table2_md="<results>/tables/table2.md",
        log:
            "<logs>/write_tables.log",
        conda:
            environment("figures")
        threads: 1
        resources:
            mem_mb=growing(1000),
            runtime=growing(15),
        params:
            controls=CONTROLS,
            teachers=lambda wildcards: LABELS,
            benchmarks=lambda wildcards: ROLES,
        script:
            "../scripts/write_tables.py"


rule build_report:
    input:
        **{f"audit_{name}": f"<results>/statistics/{name}.csv" for name in AUDITS},
        **{name: f"<results>/statistics/{name}.csv" if STUDY.training else [] for name in STUDENT_TABLES},
        conclusions="<results>/statistics/conclusions.md" if STUDY.training else [],
        template=from_here(WORKFLOW / "report" / "report.html.j2"),
        css=from_here(WORKFLOW / "report" / "report.css"),
        captions=[from_here(WORKFLOW / "report" / "captions" / f"{name}.rst") for name in FIGURES],
        found=collect("<results>/statistics/audit/{table}.csv", table=AUDIT_TABLES) if STUDY.audit else [],
        teachers=[] if STUDY.audit else "<results>/statistics/teachers.csv",
        costs=[] if STUDY.audit else "<results>/statistics/costs.csv",
        teacher_comparison=[] if STUDY.audit else "<results>/statistics/teacher_comparison.csv",
        attempts_summary=[] if STUDY.audit else "<results>/statistics/attempts_summary.csv",
        perplexities=[] if STUDY.audit else "<results>/statistics/perplexities.csv",
        ledger="<results>/statistics/ledger.csv",
        duplicates=[] if STUDY.audit else "<results>/statistics/duplicates.csv",
        balances=[] if STUDY.audit else collect("<results>/datasets/{control}/balance.csv", control=CONTROLS),
        examples="<results>/statistics/examples.json",
        scores="<results>/statistics/scores.csv" if STUDY.training else [],
        model_scores="<results>/statistics/model_scores.csv" if EVALUATED else [],
        student_comparison="<results>/statistics/student_comparison.csv" if STUDY.training else [],
        table1="<results>/tables/table1.csv" if STUDY.training else [],
        table2="<results>/tables/table2.csv" if STUDY.training else [],
        training="<results>/statistics/training.csv" if STUDY.training else [],
        preflights=(
            collect(
                "<results>/training/{control}/{teacher}/{seed}/preflight.json",
                control=SHOWN,
                teacher=TEACHERS,
                seed=STUDY.training.seeds[0],
            )
            if STUDY.training
            else []
        ),
        figures=collect("<results>/figures/{figure}.svg", figure=FIGURES),
        # What the page links to; the datasets in the released schema come with it.
        files=[
            *collect("<results>/statistics/{name}.csv", name=STATISTICS),
            *collect("<results>/tables/{name}.{kind}", name=TABLES, kind=["csv", "md"]),
            *(
                collect("<results>/statistics/audit/{table}.csv", table=AUDIT_TABLES)
                if STUDY.audit
                else [
                    *there(collect("<results>/statistics/trace_measures/{teacher}.parquet", teacher=TEACHERS)),
                    *collect("<results>/datasets/{control}/balance.csv", control=CONTROLS),
                    *there(collect("<results>/export/{control}/{teacher}", control=CONTROLS, teacher=TEACHERS)),
                ]
            ),
        ],
        code=code("build_report"),
    output:
        "<results>/report.html",
    log:
        "<logs>/build_report.log",
    conda:
        environment("figures")
    threads: 1
    resources:
        mem_mb=growing(8000),
        runtime=growing(30),
    params:
        # A function, because Snakemake would take braces in a prompt for wildcards.
        study=lambda wildcards: settings(STUDY),
    script:
        "../scripts/build_report.py"


rule figures:
    input:
        collect("<results>/figures/{figure}.svg", figure=FIGURES),
        collect("<results>/tables/{name}.md", name=TABLES),
    localrule: True


rule report:
    input:
        "<results>/report.html",
    localrule: True


rule draw_published:
    input:
        **{path.stem: from_here(path) for path in sorted(PUBLISHED.glob("*.csv"))},
        code=code("draw_published"),
    output:
        **{
            f"{name}_{kind}": f"<results>/figures/published/{name}.{kind}"
            for name in PUBLISHED_FIGURES
            for kind in ("svg", "png", "pdf", "csv")
        },
        **{f"{name}_md": f"<results>/figures/published/{name}.md" for name in ("table1", "table2")},
    log:
        "<logs>/draw_published.log",
    conda:
        environment("figures")
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(15),
    script:
        "../scripts/draw_published.py"


rule published_figures:
    input:
        collect("<results>/figures/published/{name}.svg", name=PUBLISHED_FIGURES),
    localrule: True
