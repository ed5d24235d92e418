"""A Slurm of this machine alone, for tests: two nodes that are both this machine, without accounting.

Root starts the daemons and ends them; no service manager is needed. Memory and time are counted, and nothing enforces them. The
GPUs are device files that nothing can compute on. Debian has the programs: `apt-get install --no-install-recommends slurmctld slurmd
slurm-client munge`.
"""

import os
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

_PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
#: Slurm's Snakemake plugin takes SLURM_CONF out of a job's environment, so the files stand where Slurm looks by itself.
_FOLDER = Path("/etc/slurm")
_MUNGE = Path("/run/munge/munged.pid")
_GPUS = 2

_CONFIGURATION = """
ClusterName=sandbox
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
StateSaveLocation={scratch}/state
SlurmdSpoolDir={scratch}/spool-%n
SlurmctldPidFile={scratch}/slurmctld.pid
SlurmdPidFile={scratch}/slurmd-%n.pid
SlurmctldLogFile={scratch}/slurmctld.log
SlurmdLogFile={scratch}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
ReturnToService=2
MinJobAge=3600
GresTypes=gpu
PartitionName=cpu Nodes=ALL Default=YES MaxTime=10-0 State=UP
"""
_NODE = "NodeName={name} NodeAddr=127.0.0.1 NodeHostname={host} Port={port} CPUs=32 RealMemory=64000 Gres=gpu:{gpus} State=UNKNOWN"


def missing() -> str | None:
    """What keeps the sandbox from being started on this machine, or None."""
    if absent := [name for name in _PROGRAMS if shutil.which(name) is None]:
        return f"no {', '.join(absent)} here: install slurmctld, slurmd, slurm-client and munge"
    if os.geteuid():
        return "only root can start its daemons"
    own = _FOLDER / "slurm.conf"
    if own.exists() and "ClusterName=sandbox" not in own.read_text():
        return f"{own} exists: this machine has a Slurm of its own"
    return None


class Sandbox:
    """The running Slurm, as a context; ``scratch`` is an empty folder for its state and logs."""

    def __init__(self, scratch: Path) -> None:
        self._scratch, self._host = scratch, os.uname().nodename
        # Names that the machine knows itself by.
        self._nodes = [self._host.split(".")[0], "localhost"]
        self._munge_was_there = _MUNGE.exists() and Path(f"/proc/{_MUNGE.read_text().strip()}").exists()

    def __enter__(self) -> "Sandbox":
        try:
            self._start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _start(self) -> None:
        self._scratch.mkdir(parents=True, exist_ok=True)
        self._scratch.chmod(0o755)
        (self._scratch / "state").mkdir()
        nodes, gpus = [], []
        for number, name in enumerate(self._nodes):
            nodes.append(_NODE.format(name=name, host=self._host, port=16818 + number, gpus=_GPUS))
            for gpu in range(_GPUS):
                # Slurm hands out device files; these are like /dev/null.
                os.mknod(self._scratch / f"gpu{number}{gpu}", 0o020666, os.makedev(1, 3))
            gpus.append(f"NodeName={name} Name=gpu File={self._scratch}/gpu{number}[0-{_GPUS - 1}]")
        _FOLDER.mkdir(exist_ok=True)
        written = _CONFIGURATION.format(host=self._host, scratch=self._scratch)
        (_FOLDER / "slurm.conf").write_text(written.replace("PartitionName", "\n".join([*nodes, "PartitionName"])))
        (_FOLDER / "gres.conf").write_text("\n".join(gpus) + "\n")
        (_FOLDER / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n")
        if not self._munge_was_there:
            _MUNGE.parent.mkdir(exist_ok=True)
            shutil.chown(_MUNGE.parent, "munge", "munge")
            subprocess.run(["setpriv", "--reuid=munge", "--regid=munge", "--init-groups", "munged"], check=True)
        subprocess.run(["slurmctld"], check=True)
        for name in self._nodes:
            subprocess.run(["slurmd", "-N", name], check=True)
        deadline = time.monotonic() + 60
        while _printed("sinfo", "--noheader", "--Node", "--format=%t").split() != ["idle"] * len(self._nodes):
            if time.monotonic() > deadline:
                raise RuntimeError(f"Slurm's nodes are not idle after a minute: {self._scratch} holds the logs")
            time.sleep(0.2)

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        cancel_all()
        files = [*self._scratch.glob("slurmd-*.pid"), *self._scratch.glob("slurmctld.pid")]
        for file in [*files, *([] if self._munge_was_there or not _MUNGE.exists() else [_MUNGE])]:
            with suppress(OSError, ValueError):
                os.kill(int(file.read_text()), signal.SIGTERM)
        for name in ("slurm.conf", "gres.conf", "cgroup.conf"):
            (_FOLDER / name).unlink(missing_ok=True)


def _printed(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def running() -> dict[str, str]:
    """Slurm's running jobs: what the plugin says of each (its rule and wildcards), by identifier."""
    lines = _printed("squeue", "--noheader", "--states=RUNNING", "--format=%i %k").splitlines()
    return dict(line.split(" ", 1) for line in lines)


def cancel_all() -> None:
    """End every job and wait until none is left."""
    subprocess.run(["scancel", "--user=root"], capture_output=True, check=False)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and _printed("squeue", "--noheader", "--format=%i"):
        time.sleep(0.2)
