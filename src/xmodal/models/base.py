"""What a model is: the interface, and nothing else."""

from __future__ import annotations

from itertools import permutations
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from xmodal import memory
from xmodal.errors import InputRefused, NotApplicable

if TYPE_CHECKING:
    from xmodal.data.batches import Batch, Cells
    from xmodal.data.vocabulary import Vocabulary


class ModelSettings(BaseModel):
    """Settings of a model; unknown names are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class GradientSettings(ModelSettings):
    """Settings of a model that :func:`xmodal.learning.training.fit` trains by gradient."""

    epochs: int = Field(300, ge=0, description="Most epochs to train.")
    batch_size: int = Field(512, ge=2, description="Cells in a minibatch.")
    learning_rate: float = Field(0.01, gt=0, description="Learning rate of Adam.")
    weight_decay: float = Field(0.0, ge=0, description="Weight decay (decoupled, as in AdamW).")
    patience: int = Field(25, ge=1, description="Epochs without a better validation loss before training stops.")
    schedule: Literal["plateau", "onecycle"] = Field(
        "plateau", description="Learning rate: falls when validation stalls, or one cycle over all epochs."
    )
    plateau_patience: int = Field(
        15, ge=1, description="Epochs without a better validation loss before the rate falls."
    )
    plateau_factor: float = Field(0.1, gt=0, lt=1, description="What the rate is multiplied with then.")
    refit_epochs: int = Field(
        0, ge=0, description="Epochs on training and validation cells after everything is chosen."
    )
    clip: float = Field(5.0, gt=0, description="Largest norm of the gradient.")

    def minibatch(self, cells: int) -> int:
        """Cells in a minibatch when so many are trained on."""
        return self.batch_size


class CrossModalModel(nn.Module):
    """Base of all models.

    A model is built from its settings and the vocabulary alone, so that a checkpoint can be loaded strictly: the shapes of
    all parameters and buffers follow from these two.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    source: ClassVar[str]  # the paper or method it implements
    Settings: ClassVar[type[ModelSettings]]
    has_latent: ClassVar[bool] = False
    decodes: ClassVar[bool] = False  # does it predict from a latent alone, predict = decode(encode)?
    reference_in_use: ClassVar[bool] = False  # do new cells need the reference too, or training only?
    takes_batches: ClassVar[bool] = False  # does it take technical batches out of its latent?
    takes_labels: ClassVar[bool] = False  # does it learn what cells are called, and what texts say of them?
    takes_target: ClassVar[bool] = (
        False  # can it learn to tell a column of obs (train --target), see :meth:`tell_target`?
    )
    streams: ClassVar[bool] = False  # can it be trained on cells whose counts stay on disk (see data/on_disk)?
    shares: ClassVar[bool] = False  # do several processes each compute wide layers for their rows only (xmodal.ranks)?
    only: ClassVar[str | None] = None  # the one modality it learns from; None: all, and pairs of them
    min_cells: ClassVar[int] = 2  # paired training cells below which fitting makes no sense
    min_pairs: ClassVar[int] = 2  # paired training cells below which one direction is not learned

    def __init__(self, settings: ModelSettings, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.settings = settings
        self.vocabulary = vocabulary

    @classmethod
    def build(cls, settings: ModelSettings, vocabulary: Vocabulary) -> Self:
        """The untrained model; refused where a modality is called as torch calls its own parts (``values``, ``type``)."""
        if taken := [m for m in vocabulary if hasattr(nn.ModuleDict, m)]:
            raise InputRefused(
                f"a modality cannot be called '{taken[0]}': the models use this name themselves",
                where="modality",
                do="prepare the cells again with another: xmodal prepare --modality NAME=FILE",
            )
        return cls(settings, vocabulary)

    @classmethod
    def reference_key(cls, settings: ModelSettings) -> str | None:
        """The obsm key of an embedding that cells must bring along, where the settings ask for one."""
        return None

    @classmethod
    def may_learn_labels(cls, settings: ModelSettings) -> bool:
        """Does it learn what training cells are called, where the file says it?  See ``takes_labels``."""
        return False

    def directions(self) -> list[tuple[str, str]]:
        """The pairs (source, target) this model predicts."""
        return list(permutations(self.vocabulary.modalities, 2))

    def learned(self, train: Cells) -> list[tuple[str, str]]:
        """The directions that the training cells can teach: those with enough cells that have both modalities."""
        return [(s, t) for s, t in self.directions() if len(train.having(s, t)) >= self.min_pairs]

    def prepare(self, cells: Cells) -> None:
        """Take statistics of the training cells into buffers; closed-form models are trained after this."""

    def parameter_groups(self, rate: float) -> list[dict[str, Any]]:
        """Parameters by learning rate, as torch's optimizers take them; ``rate``: the setting."""
        return [{"params": list(self.parameters()) or [nn.Parameter(torch.zeros(1))], "lr": rate}]

    def running(self) -> list[Tensor]:
        """Buffers that :meth:`loss` changes in training; they are set back where a minibatch is computed anew."""
        return []

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Weighted terms whose sum is minimised, each a scalar.  Closed-form models have none."""
        return {}

    def finish(self, cells: Cells) -> None:
        """Called once after training, with the validation cells (the training cells where there are none)."""

    def calibration(
        self, held: Cells, source: str, target: str, device: torch.device
    ) -> tuple[Cells, npt.NDArray[np.float32]]:
        """Cells with both modalities that the weights were not fitted to, and their prediction, (cells, features of target).

        ``held`` are such cells.  A model that has predictions of other cells from which those had been held out (the folds of
        an ensemble) gives these instead; it is then asked itself, not a copy of it that was fitted to fewer cells.
        """
        size, chunks = 256, []
        self.to(device).eval()
        portions = memory.of_prediction(size)

        def predicted(batch: Batch, rows: int) -> memory.Arrays:
            with torch.no_grad():
                return (self.predict(batch.to(device), source, target).float().cpu().numpy(),)

        for start in range(0, len(held), size):
            batch = held.batch(slice(start, start + size)).only(source)
            chunks.append(portions.each(batch, len(batch), predicted)[0])
        return held, np.concatenate(chunks) if chunks else np.zeros((0, len(self.vocabulary[target])), np.float32)

    def embed(self, batch: Batch) -> Tensor:
        """Joint latent of the modalities that are present, (cells, latent); a cell without any gets zeros."""
        raise NotApplicable(f"model '{self.name}' has no latent space; models that have one: see `xmodal models`")

    def tell_target(self, batch: Batch) -> Tensor:
        """Probability of each class of the vocabulary's ``target``, from all that is present, (cells, classes)."""
        raise NotApplicable(
            f"model '{self.name}' was trained to tell nothing of its cells: xmodal train --target COLUMN"
        )

    def weights(self, batch: Batch) -> Tensor:
        """Share of each modality in the embedding, (cells, modalities); sums to one over those that are present."""
        there = torch.stack([batch.present[m] for m in self.vocabulary], 1).float()
        return there / there.sum(1, keepdim=True).clamp(min=1)

    def impute(self, batch: Batch, modality: str) -> Tensor:
        """Denoised values of ``modality``, from all that is present, on its scale, (cells, features of the modality)."""
        raise NotApplicable(f"model '{self.name}' does not impute; models that do: see `xmodal models`")

    def encode(self, batch: Batch, source: str) -> Tensor:
        """All that :meth:`decode` needs of modality ``source`` to predict any other, (cells, latent), float32."""
        raise NotApplicable(f"model '{self.name}' does not predict from a latent; models that do: see docs/models.md")

    def decode(self, latent: Tensor, source: str, target: str) -> Tensor:
        """What :meth:`predict` gives for cells whose ``source`` has this latent, (cells, features of target)."""
        raise NotApplicable(f"model '{self.name}' does not predict from a latent; models that do: see docs/models.md")

    def predict(self, batch: Batch, source: str, target: str) -> Tensor:
        """Prediction of ``target`` from ``source`` on the target's scale, (cells, features of target)."""
        raise NotApplicable(f"model '{self.name}' does not predict; models that do: see `xmodal models`")
