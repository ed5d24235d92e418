# What this machine lacks for the study, before anything of it runs: `snakemake doctor`.


def resources_of_rules() -> list[dict]:
    """Script, threads and memory (of the first attempt; None where they depend on the job) of every rule that runs one."""

    def first(rule, name):
        resource = rule.resources.get(name)
        if resource is None or not resource.is_evaluable():
            return resource and resource.value
        try:
            return resource.evaluate(None, input=None, attempt=1).value
        except AttributeError:  # of the job's wildcards or inputs
            return None

    return [
        {
            "script": Path(str(rule.script)).stem if rule.script else rule.name,
            "mem_mb": first(rule, "mem_mb"),
            "threads": first(rule, "_cores"),
        }
        for rule in workflow.rules
        if rule.script or rule.shellcmd
    ]


def conda_folder() -> str | None:
    """Where conda environments are made; None where rules run without conda."""
    if DeploymentMethod.CONDA not in workflow.deployment_settings.deployment_method:
        return None
    return str(workflow.deployment_settings.conda_prefix or Path(".snakemake") / "conda")


# No output: a machine may have changed, so this runs whenever it is asked for.
rule doctor:
    input:
        code=code("doctor"),
    log:
        "<logs>/doctor.log",
    localrule: True
    conda:
        "../../envs/training.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(30),
    params:
        # A function: every rule is known by then.
        rules=lambda wildcards: resources_of_rules(),
        conda_prefix=lambda wildcards: conda_folder(),
        shown=workflow.output_settings.show_failed_logs if workflow.output_settings else False,
    script:
        "../scripts/doctor.py"
