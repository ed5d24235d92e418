from snakemake.utils import min_version

min_version("9.27")


# Alone: Snakemake would merge a file of --configfile into this one, entry by entry.
if not workflow.overwrite_configfiles:

    configfile: f"{workflow.basedir}/config/config.yaml"


include: "workflow/rules/common.smk"


pathvars:
    results=STUDY.results,
    logs=f"{STUDY.results}/logs",


include: "workflow/rules/doctor.smk"
include: "workflow/rules/corpus.smk"


if STUDY.teachers:

    include: "workflow/rules/generation.smk"
    include: "workflow/rules/verification.smk"
    include: "workflow/rules/planning.smk"
    include: "workflow/rules/curation.smk"
    include: "workflow/rules/audit.smk"
    include: "workflow/rules/statistics.smk"
    include: "workflow/rules/training.smk"


include: "workflow/rules/evaluation.smk"


if STUDY.teachers:

    include: "workflow/rules/figures.smk"


# Without teachers, models are evaluated and nothing else.
rule all:
    default_target: True
    input:
        "<results>/report.html" if STUDY.teachers else "<results>/statistics/model_scores.csv",
    localrule: True
