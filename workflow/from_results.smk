# Figures, tables and the report from the results of a study alone, on a machine that has nothing else of it:
#
#     snakemake --snakefile workflow/from_results.smk --configfile my.yaml --cores all report
#
# No rule of the stages before is known here, so none can run again and nothing they read is looked for.
from snakemake.utils import min_version

min_version("9.27")


if not workflow.overwrite_configfiles:

    configfile: f"{workflow.basedir}/../config/config.yaml"


include: "rules/common.smk"


pathvars:
    results=STUDY.results,
    logs=f"{STUDY.results}/logs",


include: "rules/figures.smk"


rule all:
    default_target: True
    input:
        "<results>/report.html",
    localrule: True
