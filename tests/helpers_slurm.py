"""A real Slurm of two nodes on this machine, from Debian's slurm-wlm and munge, in a folder of its own.

One node (``c0``) has a CPU, the other (``g0``) a CPU and a GPU by name only (``/dev/null``): enough to show what is asked for
and where it runs, not that CUDA works.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "squeue", "sinfo", "scontrol", "scancel")
CONFIG = """\
ClusterName=ci
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/munge.sock
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd-%n.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
ReturnToService=2
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SchedulerParameters=sched_interval=1,batch_sched_delay=0
GresTypes=gpu
NodeName=c0 NodeHostname={host} NodeAddr=127.0.0.1 Port={c0} CPUs=1 RealMemory={memory} State=UNKNOWN
NodeName=g0 NodeHostname={host} NodeAddr=127.0.0.1 Port={g0} CPUs=1 RealMemory={memory} Gres=gpu:1 State=UNKNOWN
PartitionName=cpu Nodes=c0 Default=YES MaxTime=60 State=UP
PartitionName=gpu Nodes=g0 Default=NO MaxTime=60 State=UP
PartitionName=both Nodes=c0,g0 Default=NO MaxTime=60 State=UP
"""
LIMITS = "process.resourceLimits = [cpus: 1, memory: 4.GB, time: 30.m]\n"
# Short times, since these jobs take seconds; the shipped profile asks a busy scheduler less often.
NEXTFLOW = f"""
executor {{
    queueSize = 4
    submitRateLimit = null
    pollInterval = '1 sec'
    queueStatInterval = '2 sec'
    exitReadTimeout = '30 sec'
}}
{LIMITS}
"""


def memory() -> int:
    """MiB of each node: what the two can share, at most 6,000."""
    return min(6000, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20 * 2 // 5)


def why_not() -> str:
    """The reason why Slurm cannot be run here, or nothing."""
    path = os.environ["PATH"] + ":/usr/sbin:/sbin"
    missing = [name for name in PROGRAMS if not shutil.which(name, path=path)]
    if missing:
        return f"{', '.join(missing)} is not there (Debian: apt-get install slurm-wlm munge)"
    if os.getuid() != 0:
        return "slurmd starts jobs as root only, and this is another user"
    if memory() < 4200:
        return "two nodes of 4 GB need a machine of 11 GB"
    return ""


class Cluster:
    """Commands of the running cluster; ``environment`` is what Nextflow and Slurm's own commands need."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **os.environ,
            "SLURM_CONF": str(folder / "slurm.conf"),
            "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin",
        }

    def call(self, *command: str, check: bool = True) -> str:
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=False, timeout=60, cwd=self.folder
        )
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def states(self) -> dict[str, str]:
        """Node -> state, such as idle."""
        listed = self.call("sinfo", "--Node", "--noheader", "--format=%N %T", check=False)
        return dict(line.split()[:2] for line in listed.splitlines() if len(line.split()) >= 2)

    def jobs(self) -> list[str]:
        """The numbers of the jobs that run now."""
        return self.call("squeue", "--noheader", "--states=R", "--format=%i").split()


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for item in sockets:
        item.bind(("127.0.0.1", 0))
    ports = [int(item.getsockname()[1]) for item in sockets]
    for item in sockets:
        item.close()
    return ports


def write_config(folder: Path) -> None:
    for name in ("munge", "state", "spool/c0", "spool/g0", "log"):
        (folder / name).mkdir(parents=True)
    (folder / "munge").chmod(0o755)
    key = folder / "munge/key"
    key.write_bytes(os.urandom(64))
    key.chmod(0o600)
    port, c0, g0 = free_ports(3)
    host = socket.gethostname().split(".")[0]
    (folder / "slurm.conf").write_text(
        CONFIG.format(folder=folder, host=host, port=port, c0=c0, g0=g0, memory=memory())
    )
    (folder / "gres.conf").write_text("NodeName=g0 Name=gpu Count=1 File=/dev/null\n")


@contextmanager
def running(folder: Path) -> Iterator[Cluster]:
    """Start the cluster, wait until both nodes take jobs, and stop all of it at the end."""
    write_config(folder)
    cluster = Cluster(folder)
    munge = [f"--{name}={folder}/munge/{file}" for name, file in (("key-file", "key"), ("socket", "munge.sock"))]
    munge += [f"--{name}={folder}/munge/{name}" for name in ("pid-file", "seed-file", "log-file")]
    try:
        cluster.call("munged", "--force", *munge)
        cluster.call("slurmctld", "-c")
        for node in ("c0", "g0"):
            cluster.call("slurmd", "-N", node)
        wait_until(lambda: cluster.states() == {"c0": "idle", "g0": "idle"}, 30, lambda: logs(folder))
        yield cluster
    finally:
        cluster.call("scancel", "--user=root", check=False)
        cluster.call("scontrol", "shutdown", check=False)
        cluster.call("munged", "--stop", *munge, check=False)
        for pid in folder.glob("*.pid"):  # whatever did not hear it
            subprocess.run(["kill", "-9", pid.read_text().strip()], check=False, capture_output=True)


def logs(folder: Path) -> str:
    return "\n".join(f"== {log.name}\n{log.read_text()[-1500:]}" for log in sorted(folder.glob("log/*.log")))


def wait_until(true: object, seconds: float, why: object) -> None:
    assert callable(true) and callable(why)
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            pytest.fail(f"Slurm did not come up\n{why()}")
        time.sleep(0.2)
