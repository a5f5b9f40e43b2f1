"""What torchrun said to this process: is it one of several?  Without torch, so that every command may ask."""

from __future__ import annotations

import logging
import os
import time

from xmodal.errors import UsageRefused

TRAINS = "train"  # the one command that several processes can share
GRACE = 15.0  # seconds in which torchrun ends the others once one has failed


def asked() -> bool:
    """Did torchrun start more processes than this one?"""
    return "TORCHELASTIC_RUN_ID" in os.environ and count() > 1


def count() -> int:
    """Processes of this training; 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "TORCHELASTIC_RUN_ID" in os.environ else 1


def here() -> int:
    """The number of this process among all, 0 for the one that writes."""
    return int(os.environ.get("RANK", "0")) if asked() else 0


def here_too() -> int:
    """Processes of this training on this host, which share its CPUs."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if asked() else 1


def in_several(processes: int, arguments: list[str]) -> int:
    """Start this command again as so many processes on this machine, by torchrun; returns the exit code.

    The code is that of the process that failed first; what it said is all that is said.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main

    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)  # it would say again what the process said
    try:
        main(["--standalone", "--nproc-per-node", str(processes), "--module", "xmodal", *arguments])
    except ChildFailedError as error:
        code = error.get_first_failure()[1].exitcode
        return 128 - code if code < 0 else code
    except SignalException as stop:
        return 128 + int(stop.sigval)
    return 0


def require_alone(command: str) -> None:
    """Refuse to do in several processes what one must do."""
    if asked() and command != TRAINS:
        raise UsageRefused(
            f"torchrun: xmodal {command} runs in one process; start it without torchrun, or --nproc-per-node 1"
        )


def wait_for_first(hearsay: bool = False) -> None:
    """What is wrong is mostly wrong for all: the first process says it, and torchrun ends the others before they do.

    ``hearsay``: it is wrong in another process, which is given time to say so.
    """
    if here() or (asked() and hearsay):
        time.sleep(GRACE * (1 + hearsay))
