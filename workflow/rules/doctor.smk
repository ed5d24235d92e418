# What this machine lacks for the study, before anything of it runs: `snakemake doctor`.


from whichteacher.doctor.rules import resources_of


# No output: a machine may have changed, so this runs whenever it is asked for.
rule doctor:
    input:
        code=code("doctor"),
    log:
        "<logs>/doctor.log",
    localrule: True
    conda:
        environment("training")
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(30),
    params:
        # A function: every rule is known by then.
        rules=lambda wildcards: resources_of(workflow.rules),
        # Where conda environments are made; None where rules run without conda.
        conda_prefix=(
            str(workflow.deployment_settings.conda_prefix or Path(".snakemake") / "conda")
            if DeploymentMethod.CONDA in workflow.deployment_settings.deployment_method
            else None
        ),
        shown=(workflow.output_settings.show_failed_logs if workflow.output_settings else False),
    script:
        "../scripts/doctor.py"
