# What jobs are given that ask for GPUs as the pipeline's rules do; see run_study_on_slurm.py.
rule all:
    input:
        "one_node.txt",
        "several_nodes.txt",
    localrule: True


# As in ON_GPUS of workflow/rules/common.smk.
rule one_node:
    output:
        "one_node.txt",
    resources:
        gpu=2,
        nodes=1,
        cpus_per_gpu=8,
        mem_mb=500,
        runtime=5,
    shell:
        'echo "$CUDA_VISIBLE_DEVICES $SLURM_CPUS_ON_NODE" > {output}'


# As in workflow/rules/training.smk, and with the step that train_student starts.
rule several_nodes:
    output:
        "several_nodes.txt",
    threads: 16
    resources:
        gres="gpu:2",
        nodes=2,
        tasks=2,
        tasks_per_gpu=0,
        mpi="srun",
        mem_mb=500,
        runtime=5,
    shell:
        "srun --overlap --nodes=2 --ntasks=2 --ntasks-per-node=1"
        " sh -c 'echo \"$CUDA_VISIBLE_DEVICES $SLURM_CPUS_ON_NODE $SLURMD_NODENAME\"' | sort > {output}"
