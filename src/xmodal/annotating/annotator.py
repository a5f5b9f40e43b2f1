"""What a model must be able to do so that cells can be named by it; the models are in :mod:`xmodal.models`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from xmodal import registry
from xmodal.errors import InputRefused, NotApplicable

if TYPE_CHECKING:
    from torch import Tensor

    from xmodal.data.batches import Batch
    from xmodal.data.vocabulary import Labels
    from xmodal.learning.checkpoint import Checkpoint
    from xmodal.text.bank import TextBank


class Annotator(Protocol):
    """``seen``: ids of the types trained on."""

    @property
    def seen(self) -> tuple[str, ...]: ...

    def scores(self, batch: Batch, candidates: Sequence[str]) -> Tensor:
        """Calibrated logits of bank ids, (cells, candidates)."""

    def known(self, batch: Batch) -> Tensor:
        """0 to 1, high where a cell is of a type trained on, (cells,)."""

    def explain(self, batch: Batch, candidates: Sequence[str]) -> Tensor:
        """What each gene adds to the best candidate's logit, (cells, genes); :class:`NotApplicable` where it reads no genes."""

    def embed(self, batch: Batch) -> Tensor:
        """Rows of length 1, (cells, width)."""

    def thresholds(self) -> dict[str, float]:
        """``reject``: value of ``known`` below which a cell is of no type trained on; and what else was chosen."""


def of(loaded: Checkpoint, path: Path) -> tuple[Annotator, TextBank, Labels]:
    """The model with its texts and labels; :class:`NotApplicable` for a model that learns no labels."""
    model = loaded.model
    if not type(model).takes_labels:
        able = [n for n in registry.names() if registry.get(n).takes_labels]
        raise NotApplicable(
            f"this checkpoint's model ({model.name}) does not annotate; models that do: {', '.join(able) or 'none'}"
        )
    bank, labels = model.vocabulary.texts, model.vocabulary.labels
    if bank is None or labels is None:
        raise InputRefused(
            "the checkpoint holds no texts of cell types", where=str(path), do="train it again, with --label-key"
        )
    return cast(Annotator, model), bank, labels
