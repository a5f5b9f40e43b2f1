"""The one training loop, for every model."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from xmodal import memory, precision, progress, ranks
from xmodal.data import leaving, packed, shuffling
from xmodal.data.batches import joined
from xmodal.errors import ModelRefused
from xmodal.kernels.losses import without_values
from xmodal.learning import portions
from xmodal.learning.optimizer import AdamW, clip
from xmodal.learning.training_state import Keeper
from xmodal.models.base import CrossModalModel, GradientSettings
from xmodal.models.layers import drawn

if TYPE_CHECKING:
    from xmodal.data.batches import Batch, Cells

log = logging.getLogger(__name__)
Row = dict[str, float]
Scheduler = torch.optim.lr_scheduler.LRScheduler
REFIT_RATE = 0.25  # of the highest rate
MEASURED = 8  # minibatches of an epoch whose loss is measured, or a few more
WATCHED = 256  # validation cells of an epoch where their loss is only looked at and chooses nothing
WARM_UP = 0.3  # share of the epochs in which the rate of one cycle rises


@dataclass
class Fit:
    """What training left behind: one row for each epoch, and the best of them."""

    history: list[Row] = field(default_factory=list)
    best_epoch: int = 0
    best_loss: float = math.inf
    warnings: list[str] = field(default_factory=list)
    resumed: int = 0  # epochs that an earlier attempt had done
    cells_at_once: int | None = None  # where the GPU's memory was not enough for whole minibatches


@dataclass
class Running:
    """Everything that must survive a kill for training to go on exactly where it was."""

    model: CrossModalModel
    optimizer: torch.optim.Optimizer
    scheduler: Scheduler
    shuffle: torch.Generator
    fit: Fit
    best: dict[str, torch.Tensor]
    portions: memory.Portions
    bar: progress.Bar = field(default_factory=progress.Bar)

    @property
    def epoch(self) -> int:
        return len(self.fit.history)


def fit(
    model: CrossModalModel,
    train: Cells,
    valid: Cells,
    device: torch.device,
    *,
    seed: int = 0,
    keeper: Keeper | None = None,
) -> Fit:
    """Train ``model`` in place and return its history; the weights are those of the best validation epoch.

    ``keeper`` keeps the resumable state; where it has one of the same run, training goes on from there.
    """
    keeper = keeper or Keeper(None)
    torch.manual_seed(seed)
    model.prepare(train)
    model.to(device)
    ranks.agree(model.state_dict().values())
    running = start(model, seed)
    settings = model.settings
    if isinstance(settings, GradientSettings) and settings.epochs:
        if keeper.resume(running):
            running.fit.resumed = running.epoch
            log.info("going on from epoch %d", running.epoch)
        each = len(train)
        with (
            progress.bar(settings.epochs * each, "training", done=running.epoch * each) as running.bar,
            ranks.sharing(),
        ):
            _epochs(running, settings, kept(train, valid), device, keeper)
        model.load_state_dict(running.best)
    model.eval()
    _finish(model, valid if len(valid) else train)
    if isinstance(settings, GradientSettings) and settings.epochs and len(valid):
        (everything,) = kept(joined(train, valid))
        with progress.bar(settings.refit_epochs * len(everything), "all cells") as running.bar:
            with ranks.sharing():
                _refit(running, settings, everything, device)
            ranks.agree(model.state_dict().values())
    if running.portions.halved:
        running.fit.cells_at_once = running.portions.size
        running.fit.warnings.append(
            f"the memory of the GPU was enough for {running.portions.size} cells at once, not for whole minibatches: with more "
            "memory the weights differ a little"
        )
    return running.fit


def start(model: CrossModalModel, seed: int) -> Running:
    """Optimizer, scheduler and generator of a fresh run."""
    settings = model.settings
    if not isinstance(settings, GradientSettings):
        settings = GradientSettings(epochs=0)
    rate = settings.learning_rate
    optimizer = AdamW(model.parameter_groups(rate), lr=rate, weight_decay=settings.weight_decay, fused=True)
    scheduler: Scheduler
    if settings.schedule == "onecycle":
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: one_cycle(epoch, settings.epochs))
    else:
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, factor=settings.plateau_factor, patience=settings.plateau_patience
        )
    shuffle = torch.Generator().manual_seed(seed)
    return Running(model, optimizer, scheduler, shuffle, Fit(), _copy(model), portions.of_training(settings.batch_size))


def one_cycle(epoch: int, epochs: int) -> float:
    """Share of the highest rate: up from a 25th over the first epochs, then down a cosine to nearly nothing (Smith 2018)."""
    rise = max(1.0, WARM_UP * epochs)
    if epoch < rise:
        return 0.04 + 0.96 * 0.5 * (1 - math.cos(math.pi * (epoch + 1) / (rise + 1)))
    return max(1e-3, 0.5 * (1 + math.cos(math.pi * (epoch - rise + 1) / (epochs - rise + 1))))


def _epochs(
    running: Running, settings: GradientSettings, cells: tuple[Cells, ...], device: torch.device, keeper: Keeper
) -> None:
    result, pace = running.fit, progress.Pace()
    held_out = watched(settings, cells[1] if len(cells[1]) else cells[0])
    while running.epoch < settings.epochs and running.epoch - result.best_epoch < settings.patience:
        row = ranks.agreed(_one_epoch(running, settings, (cells[0], held_out), device), device)
        if not math.isfinite(row["valid_loss"]):
            keeper.done()  # going on from here would fail again
            raise ModelRefused(
                f"the loss is not finite in epoch {running.epoch + 1}",
                do="lower the learning rate: --set learning_rate=0.001",
            )
        result.history.append(row)
        ranks.agree(running.model.state_dict().values())
        if isinstance(running.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            running.scheduler.step(row["valid_loss"])
        else:
            running.scheduler.step()
        if row["valid_loss"] < result.best_loss or settings.schedule == "onecycle":  # a cycle is whole at its end only
            result.best_loss, result.best_epoch, running.best = row["valid_loss"], running.epoch, _copy(running.model)
        _tell(running, settings, row, pace.after(len(cells[0]), settings.epochs - running.epoch))
        keeper.epoch_done(running)


def kept(*cells: Cells) -> tuple[Cells, ...]:
    """What many epochs go over, read from its file once where that is few enough counts to be kept: batches are the same."""
    total = sum(int(x.entries.sum()) for x in cells)
    few = total <= shuffling.LARGE and total * packed.MOST <= leaving.free_memory() / 2
    return tuple(x.packed() for x in cells) if few else cells


def watched(settings: GradientSettings, cells: Cells) -> Cells:
    """The held-out ``cells`` whose loss every epoch measures.

    A cycle ends where it ends, so that its validation loss is for the eye alone: some of the cells, the same in every epoch,
    are enough, and all of 781 took an eighth of the training.
    """
    if settings.schedule != "onecycle" or len(cells) <= WATCHED:
        return cells
    return cells.subset(drawn(len(cells), 1, WATCHED)).in_memory()


def _tell(running: Running, settings: GradientSettings, row: Row, pace: str) -> None:
    """Of the epoch that has just ended: a line in a log, beside the bar on a terminal."""
    result, now = running.fit, f"{running.epoch}/{settings.epochs}"
    chooses = settings.schedule != "onecycle"
    best = f", best {result.best_loss:.4f}" if chooses else ""
    running.bar.say(f"epoch {now}", f"train {row['train_loss']:.4f}, valid {row['valid_loss']:.4f}{best}")
    progress.line(
        log,
        "epoch %s  train %.4f  valid %.4f  rate %.1e  %s%s",
        *(now, row["train_loss"], row["valid_loss"], row["learning_rate"], pace),
        "  best" if chooses and result.best_epoch == running.epoch else "",
    )


def _refit(running: Running, settings: GradientSettings, cells: Cells, device: torch.device) -> None:
    """A few epochs on all cells at a falling rate, when nothing is left to choose."""
    model, pace = running.model.to(device).train(), progress.Pace()
    for epoch in range(settings.refit_epochs):
        for group in running.optimizer.param_groups:
            group["lr"] = REFIT_RATE * group["initial_lr"] * one_cycle(epoch, settings.refit_epochs)
        loss = one_pass(running, settings, cells, device)
        now, total = f"{epoch + 1}/{settings.refit_epochs}", sum(loss.values())
        running.bar.say(f"all cells, epoch {now}", f"loss {total:.4f}")
        took = pace.after(len(cells), settings.refit_epochs - epoch - 1)
        progress.line(log, "all cells, epoch %s  loss %.4f  %s", now, total, took)
    model.eval()


def one_pass(running: Running, settings: GradientSettings, cells: Cells, device: torch.device) -> Row:
    """All minibatches of ``cells`` once; the mean of each loss term over those whose loss is measured.

    A wide target's loss costs a third of the step and its gradient does not need it: measured in so many minibatches, evenly
    spread, as an epoch's mean needs.
    """
    totals = Means()
    size = settings.minibatch(len(cells))
    every = max(1, len(cells) // size // MEASURED)
    for i, batch in enumerate(cells.minibatches(size, running.shuffle)):
        with without_values(i % every > 0), precision.step():
            found = _gradients(running, batch, device)
        running.bar.add(len(batch))
        if not found:  # a last minibatch of single cells of different modalities teaches nothing
            continue
        clip(list(running.model.parameters()), settings.clip)
        running.optimizer.step()
        for terms, cells_of_portion in found if i % every == 0 else ():
            totals.add(terms, cells_of_portion)
    return totals.means()


def _gradients(running: Running, batch: Batch, device: torch.device) -> portions.Terms:
    """Gradients of the mean loss of ``batch``, and the loss terms; in portions where the GPU cannot hold it whole."""
    undo = portions.rewinding(running.model, device)
    return running.portions.run(lambda size: portions.gradients(running, batch, device, size), len(batch), undo)


def _one_epoch(running: Running, settings: GradientSettings, cells: tuple[Cells, Cells], device: torch.device) -> Row:
    """Of (training cells, cells whose loss is looked at); the mean of each loss."""
    train, held_out = cells
    rate = running.optimizer.param_groups[0]["lr"]
    running.model.train()
    means = one_pass(running, settings, train, device)
    held = running.portions.run(
        lambda size: evaluate(running.model, held_out, min(size, settings.batch_size), device),
        min(settings.batch_size, len(held_out)),
    )
    row = {"train_loss": sum(means.values()), "valid_loss": sum(held.values())}
    return {**row, **{f"valid_{k}": v for k, v in held.items()}, "learning_rate": rate}


@torch.no_grad()
def evaluate(model: CrossModalModel, cells: Cells, size: int, device: torch.device) -> Row:
    """Mean of each loss term over ``cells``."""
    model.eval()
    totals = Means()
    for batch in cells.minibatches(size):
        totals.add(model.loss(batch.to(device)), len(batch))
    return totals.means()


@torch.no_grad()
def _finish(model: CrossModalModel, cells: Cells) -> None:
    """On the CPU where the GPU's memory is not enough: it is done once, and in few cells."""
    try:
        model.finish(cells)
        return
    except RuntimeError as error:
        if not memory.exceeded(error):
            raise
    log.warning("the memory of the GPU is not enough for the last step of training; it is done on the CPU")
    memory.release()
    model.to("cpu").finish(cells)


class Means:
    """Running means of loss terms; a term counts where it is there, since not every batch has every modality."""

    def __init__(self) -> None:
        self.sums: Row = {}
        self.cells: Row = {}

    def add(self, terms: dict[str, Any], cells: int) -> None:
        for name, value in terms.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value) * cells
            self.cells[name] = self.cells.get(name, 0.0) + cells

    def means(self) -> Row:
        return {name: total / self.cells[name] for name, total in self.sums.items()}


def _copy(model: CrossModalModel) -> dict[str, torch.Tensor]:
    return {k: v.detach().clone() for k, v in model.state_dict().items()}
