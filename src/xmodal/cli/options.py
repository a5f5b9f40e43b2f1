"""Options shared by all commands, and settings classes turned into options, so no default is written twice."""

from __future__ import annotations

import functools
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click
from pydantic import BaseModel, ValidationError

from xmodal import caches, progress, starting
from xmodal.errors import UsageRefused

HELP = {"help_option_names": ["-h", "--help"]}
Function = Callable[..., Any]
CELLS = click.Path(exists=True, path_type=Path)  # a Zarr store is a folder
READABLE = click.Path(exists=True, dir_okay=False, path_type=Path)
# How schedulers say that time is up: SIGTERM (Slurm, Kubernetes, PBS), SIGUSR2 (Slurm as Nextflow asks it, LSF), SIGUSR1
# (Grid Engine), SIGXCPU (limits of CPU time).
STOPPING = ("SIGTERM", "SIGUSR1", "SIGUSR2", "SIGXCPU")
FOLDER = click.Path(file_okay=False, path_type=Path)
WRITABLE = click.Path(dir_okay=False, path_type=Path)
STORE = click.Path(writable=True, path_type=Path)  # a file, or the folder of a Zarr store


def granted_cpus() -> int:
    """CPUs this process may use: a scheduler's grant, the affinity mask, or the cgroup's quota, whichever is least."""
    counts = [len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1]
    for name in ("SLURM_CPUS_PER_TASK", "GALAXY_SLOTS", "NXF_TASK_CPUS"):
        if os.environ.get(name, "").isdigit():
            counts.append(max(1, int(os.environ[name])))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()[:2]
        if quota != "max":
            counts.append(max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        pass
    return min(counts)


def common(function: Function) -> Function:
    """``--threads --device --seed --quiet/--verbose --overwrite``, and set-up of logging and thread counts.

    The wrapped command receives ``threads, device, seed, overwrite`` as keywords.
    """

    @click.option("--threads", type=click.IntRange(1), default=None, help="CPU threads [default: the CPUs granted].")
    @click.option(
        "--device",
        type=click.Choice(["auto", "cpu", "cuda"]),
        default="auto",
        show_default=True,
        envvar="XMODAL_DEVICE",
        show_envvar=True,
        help="Where to compute.",
    )
    @click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of everything random.")
    @click.option("--overwrite", is_flag=True, help="Replace outputs that exist.")
    @click.option("--quiet", "loudness", flag_value="quiet", help="Warnings and errors only.")
    @click.option("--verbose", "loudness", flag_value="verbose", help="Everything, with the time.")
    @functools.wraps(function)
    def wrapped(*args: Any, loudness: str | None, threads: int | None, **kwargs: Any) -> Any:
        set_up_logging(loudness)
        caches.provide()
        starting.require_alone(click.get_current_context().info_name or "")
        threads = max(1, (threads or granted_cpus()) // starting.here_too())
        # Before numpy or torch is imported: oversubscribed threads made steps 5-10 times slower.
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
        for name in (
            names if "numba" not in sys.modules else names[:3]
        ):  # numba refuses another number once it has begun
            os.environ[name] = str(threads)
        # Waiting threads sleep: spinning ones took an epoch from 5 to 60 s where another job had the same cores.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        return function(*args, threads=threads, **kwargs)

    return wrapped


def set_up_logging(loudness: str | None) -> None:
    level = {"quiet": logging.WARNING, "verbose": logging.DEBUG}.get(loudness or "", logging.INFO)
    form = "%(asctime)s %(name)s %(levelname)s %(message)s" if loudness == "verbose" else "xmodal: %(message)s"
    logging.basicConfig(handlers=[progress.Lines(sys.stderr)], level=logging.WARNING, format=form, force=True)
    logging.getLogger("xmodal").setLevel(level)
    if loudness != "verbose":
        warnings.simplefilter("ignore")  # libraries' deprecations are not the user's business
    for name in STOPPING:
        number = getattr(signal, name, None)  # not every system has all of them
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _stop)


def _stop(*_: object) -> None:
    """Unwind, so that temporary files go and a training keeps its state; a second signal must not disturb that."""
    for name in STOPPING:
        if number := getattr(signal, name, None):
            signal.signal(number, signal.SIG_IGN)
    sys.exit(143)


def from_settings(settings: type[BaseModel], skip: tuple[str, ...] = ()) -> Callable[[Function], Function]:
    """One option per field of ``settings``: name, type, default and help are the field's own.

    The wrapped command receives a validated ``settings=`` object.
    """

    def decorate(function: Function) -> Function:
        fields = {name: f for name, f in settings.model_fields.items() if name not in skip}

        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            values = {name: kwargs.pop(name) for name in fields}
            return function(*args, settings=validated(settings, values), **kwargs)

        result: Function = wrapped
        for name, field in reversed(list(fields.items())):
            kind, extra = _click_type(field.annotation)
            flag = "--" + name.replace("_", "-")
            declaration = f"{flag}/--no-{flag[2:]}" if kind is bool else flag
            extra = extra if kind is bool else {"type": kind, **extra}
            if isinstance(field.json_schema_extra, dict) and (envvar := field.json_schema_extra.get("envvar")):
                extra |= {"envvar": str(envvar), "show_envvar": True}
            default = field.get_default(call_default_factory=True)
            result = click.option(
                declaration, name, default=default, show_default=default is not None, help=field.description, **extra
            )(result)
        return result

    return decorate


def validated(settings: type[BaseModel], values: dict[str, Any]) -> Any:
    """``settings(**values)``, or a usage error that names the option and what it may be."""
    try:
        return settings(**values)
    except ValidationError as error:
        first = error.errors()[0]
        where = "--" + "-".join(str(p) for p in first["loc"]).replace("_", "-") if first["loc"] else ""
        raise UsageRefused(f"{where}: {first['msg']}".lstrip(": ")) from None


def require_apart(files: dict[str, Path | None], option_of_folder: str, folder: Path | None) -> None:
    """No output may be written over another one of the same command; ``files``: by their options."""
    given = {option: path.resolve() for option, path in files.items() if path is not None}
    for option, path in given.items():
        same = [other for other in given if other != option and given[other] == path]
        if same:
            raise UsageRefused(f"{option} and {same[0]} are one file; give two names")
        if folder is not None and path.parent == folder.resolve():
            raise UsageRefused(
                f"{option} lies in the folder of {option_of_folder}, which has files of its own; give another place"
            )


def _click_type(annotation: Any) -> tuple[Any, dict[str, Any]]:
    if get_origin(annotation) is Literal:
        return click.Choice(list(get_args(annotation))), {}
    if get_origin(annotation) in (tuple, list):
        return str, {"multiple": True}
    inner = [a for a in get_args(annotation) if a is not type(None)]
    if inner:  # X | None
        return _click_type(inner[0])
    return (annotation if annotation in (int, float, bool, str) else str), {}
