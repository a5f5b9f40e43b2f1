"""What a model predicts from, written in place of the predicted values, and read again to decode it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from xmodal import fields
from xmodal.errors import InputRefused, NotApplicable

if TYPE_CHECKING:
    import pandas as pd

    from xmodal.data.batches import Cells
    from xmodal.models.base import CrossModalModel

WRITTEN = "give what `xmodal predict --output-kind latent` wrote"


def require_able(model: CrossModalModel) -> None:
    """Refuse models that do not predict from a latent, naming those that do."""
    if model.decodes:
        return
    from xmodal import registry

    able = ", ".join(n for n in registry.names() if registry.get(n).decodes)
    raise NotApplicable(
        f"model '{model.name}' does not predict from one latent, so there is none to write; models that do: {able}. "
        "What to do: leave --output-kind out; --features, --top and --threshold make small outputs with every model"
    )


def width(model: CrossModalModel, cells: Cells, source: str) -> int:
    """Dimensions of the latent, by that of one empty cell."""
    import torch

    with torch.no_grad():
        return int(model.cpu().eval().encode(cells.batch(slice(0, 0), 1, source), source).shape[1])


def frame(dimensions: int) -> pd.DataFrame:
    """``var`` of a latent."""
    import pandas as pd

    return pd.DataFrame(index=pd.Index([f"latent_{i}" for i in range(1, dimensions + 1)], dtype=object))


@dataclass(frozen=True)
class Latent:
    """A file of latents: ``values`` float32 (cells, latent), ``obs``, and what it says of itself."""

    values: npt.NDArray[np.float32]
    obs: pd.DataFrame
    about: dict[str, Any]
    facts: dict[str, Any]

    @property
    def rows(self) -> tuple[int, int]:
        """Which of the cells that were to be predicted these are."""
        first, last = str(self.about.get("rows", f"0:{len(self.obs)}")).split(":")
        return int(first), int(last)


def read(path: Path) -> Latent:
    """A file of latents; refused where it is something else, or was changed."""
    import anndata as ad

    from xmodal.data.io import file_kind, refusing

    if file_kind(path) != "h5ad":
        raise InputRefused("a latent is an .h5ad", where=str(path), do=WRITTEN)
    with refusing(path):
        adata = ad.read_h5ad(path)
    about = adata.uns.get(fields.UNS, {})
    about = dict(about) if hasattr(about, "get") else {}
    if about.get("schema") != fields.LATENT_SCHEMA:
        raise InputRefused("there is no latent of xmodal in it", where=str(path), do=WRITTEN)
    facts = json.loads(about["settings"])
    values = np.asarray(adata.X)
    found = Latent(values.astype(np.float32, copy=False), adata.obs, about, facts)
    first, last = found.rows
    if values.shape != (last - first, facts[fields.LATENT]) or not np.isfinite(values).all():
        what = f"the latent was changed: {values.shape[0]} x {values.shape[1]} values, or some are not finite"
        raise InputRefused(what, where=str(path), do=WRITTEN)
    return found
