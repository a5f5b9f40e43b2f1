"""The resumable state of a running training: weights, optimizer, schedule, random numbers, history; one safetensors file.

A run that is killed and goes on from this file ends with the same weights as one that was never stopped.
"""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from xmodal import fields, precision
from xmodal.errors import InputRefused
from xmodal.outputs import replacing

if TYPE_CHECKING:
    from pathlib import Path

    from xmodal.learning.training import Running

KEY = "xmodal-state"
FORGOTTEN = 3600.0  # seconds after which nobody writes a state any more
SHARE = 0.05  # of the time goes into keeping the state, at most
AFRESH = "give --overwrite to train from the start, or the command it was made with"
log = logging.getLogger(__name__)


class Keeper:
    """Keeps the last whole epoch at hand: to disk every so often, and at once when the run is stopped (SIGTERM, Ctrl-C).

    The second is not enough: a batch system kills what is left of a job as soon as the job's shell has gone, which is often
    before the state is written.  ``every``: seconds between two writes; None: as often as costs a 20th of the time.
    ``run``: a digest of everything the weights depend on (model, settings, seed, cells); a state of another run is refused.
    """

    def __init__(self, path: Path | None, run: str = "", every: float | None = None) -> None:
        self.path, self.run, self.every = path, run, every
        self.saved, self.cost = time.monotonic(), 0.0
        if path is not None:
            _sweep(path)
        self.taken: Snapshot | None = None

    def resume(self, running: Running) -> bool:
        """Bring ``running`` to the kept state, where there is one."""
        if self.path is None or not self.path.exists():
            return False
        load(self.path, running, self.run)
        return True

    def epoch_done(self, running: Running) -> None:
        if self.path is None:
            return
        self.taken = snapshot(running, self.run)
        began = time.monotonic()
        if began - self.saved > (self.cost / SHARE if self.every is None else self.every):
            save(self.path, self.taken)
            self.saved = time.monotonic()
            self.cost = self.saved - began

    def stopped(self) -> None:
        """Write the last whole epoch; where even that fails (full disk) the state written before it stays."""
        if self.path is None or self.taken is None:
            return
        try:
            save(self.path, self.taken)
            log.warning("stopped; the same command goes on from %s", self.path.name)
        except (OSError, InputRefused) as error:
            log.warning("stopped, and the last epoch could not be kept: %s", error)

    def done(self) -> None:
        """The result is there, or there is nothing to go on from."""
        self.taken = None
        if self.path is not None:
            self.path.unlink(missing_ok=True)


class Reader(Keeper):
    """Goes on from a state that another process keeps."""

    def __init__(self, path: Path | None, run: str) -> None:
        super().__init__(None, run)
        self.kept = path

    def resume(self, running: Running) -> bool:
        if self.kept is None:
            return False
        load(self.kept, running, self.run)
        return True


@dataclass(frozen=True)
class Snapshot:
    """The state after a whole epoch; a run stopped within an epoch goes on from the one before."""

    tensors: dict[str, torch.Tensor]
    header: str


def snapshot(running: Running, run: str = "") -> Snapshot:
    """Copy everything that must survive."""
    tensors = {f"model.{k}": v for k, v in running.model.state_dict().items()}
    tensors |= {f"best.{k}": v for k, v in running.best.items()}
    for index, slots in running.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{k}": torch.as_tensor(v) for k, v in slots.items()}
    tensors |= {"random.torch": torch.get_rng_state(), "random.shuffle": running.shuffle.get_state()}
    if torch.cuda.is_available():
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    fit = running.fit
    scheduler = {k: v for k, v in running.scheduler.state_dict().items() if isinstance(v, int | float | list)}
    rates = [g["lr"] for g in running.optimizer.param_groups]
    header = {
        "history": fit.history,
        "run": run,
        fields.PRECISION: precision.chosen(),
        "best_epoch": fit.best_epoch,
        "best_loss": fit.best_loss,
        "rates": rates,
        "scheduler": scheduler,
        "cells_at_once": running.portions.size,
    }
    return Snapshot({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, json.dumps(header))


def save(path: Path, taken: Snapshot) -> None:
    """Replace ``path`` in one step."""
    from safetensors.torch import save_file

    with replacing(path, overwrite=True) as temporary:
        save_file(taken.tensors, temporary, {KEY: taken.header})


def load(path: Path, running: Running, run: str = "") -> None:
    """Bring ``running`` to the state in ``path``; refuses one of another model or of other settings."""
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load_file

    try:
        with safe_open(path, "pt") as handle:
            header: dict[str, Any] = json.loads((handle.metadata() or {})[KEY])
        before, same = header.get(fields.PRECISION, fields.FP32), header["run"] == run
        if same:
            _restore(running, header, load_file(path))
    except (SafetensorError, KeyError, ValueError, RuntimeError, OSError) as error:
        raise InputRefused(
            f"the state of a stopped training cannot be read ({error})", where=str(path), do=AFRESH
        ) from None
    if before != precision.chosen():
        raise InputRefused(
            f"a stopped training in {before} left this state, and this one is in {precision.chosen()}",
            where=str(path),
            do=f"give --precision {before}, or --overwrite to train from the start",
        )
    if not same:
        raise InputRefused(
            "a stopped training of other cells, settings, seed or model (or of another version or device) left this state",
            where=str(path),
            do=AFRESH,
        )


def _sweep(path: Path) -> None:
    """Remove what attempts that were killed while they wrote ``path`` left beside it; what is young may be written now."""
    for left in path.parent.glob(f".{path.stem}.*.tmp{path.suffix}"):
        if time.time() - left.stat().st_mtime > FORGOTTEN:
            left.unlink(missing_ok=True)


def same_run(path: Path, run: str) -> bool:
    """Whether ``path`` is a readable state of this very run."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as handle:
            return bool(json.loads((handle.metadata() or {})[KEY])["run"] == run)
    except (SafetensorError, KeyError, ValueError, OSError):
        return False


def _restore(running: Running, header: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    running.model.load_state_dict(_under("model.", tensors))
    running.best = _under("best.", tensors)
    slots: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in _under("optimizer.", tensors).items():
        index, name = key.split(".", 1)
        slots.setdefault(int(index), {})[name] = value
    state = running.optimizer.state_dict()
    state["state"] = slots
    for group, rate in zip(state["param_groups"], header["rates"], strict=True):
        group["lr"] = rate
    running.optimizer.load_state_dict(state)
    _laid_out(running.optimizer)
    running.scheduler.load_state_dict(header["scheduler"])
    running.shuffle.set_state(tensors["random.shuffle"])
    torch.set_rng_state(tensors["random.torch"])
    if "random.cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["random.cuda"])
    running.fit.history, running.fit.best_epoch = header["history"], header["best_epoch"]
    running.fit.best_loss = header["best_loss"]
    # what an attempt on this GPU found out; absent from states of before
    running.portions.size = header.get("cells_at_once", running.portions.size)


def _laid_out(optimizer: torch.optim.Optimizer) -> None:
    """Moments lie in memory as their parameters do; a file keeps no such order, and the fused kernel takes it for granted."""
    for parameter, slots in optimizer.state.items():
        for name, value in slots.items():
            if value.shape == parameter.shape and value.stride() != parameter.stride():
                slots[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _under(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
