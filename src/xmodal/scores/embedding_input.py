"""What an embedding is scored on: the file, the cells, their labels and batches, each refused where it cannot be."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from xmodal import fields
from xmodal.errors import InputRefused
from xmodal.scores import given_results
from xmodal.scores.embedding_measures import NEIGHBORS
from xmodal.scores.metrics import Array, Bools, Index
from xmodal.scores.validation_cells import learned_parts

if TYPE_CHECKING:
    import pandas as pd
    from mudata import MuData

    from xmodal.scores.evaluation_settings import EvaluationSettings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Embedding:
    """A file that ``xmodal embed`` wrote: ``z`` (cells, latent), and that of each modality alone, nan where it is not there."""

    where: str
    cells: npt.NDArray[np.str_]
    z: Array
    by_modality: dict[str, Array] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Groups:
    """Labels or batches: ``codes`` (cells,), -1 where unknown, and the names they stand for."""

    key: str
    codes: Index
    names: npt.NDArray[np.str_]

    def known(self, rows: Bools) -> Bools:
        """Of the cells ``rows`` (cells,; bool) those that have one."""
        found: Bools = rows & (self.codes >= 0)
        return found

    def among(self, rows: Bools) -> Index:
        """Codes of the cells ``rows``, which all have one, renumbered from 0 without gaps."""
        return np.unique(self.codes[rows], return_inverse=True)[1].astype(np.int64)

    def counts(self, rows: Bools) -> dict[str, int]:
        own = self.codes[rows]
        found = {str(n): int((own == i).sum()) for i, n in enumerate(self.names)}
        missing = int((own < 0).sum())
        return {k: v for k, v in found.items() if v} | ({"(none)": missing} if missing else {})


@dataclass(frozen=True)
class Scene:
    """The cells that play a part, ``names`` (cells,), all embedded.

    Masks (cells,): ``scored``; ``train``, whose labels are known to the held-out score; ``heldout``, which it judges.
    ``row``: where each stands in the embedding's file.  ``which``: test, valid or all.  ``left_out``: cells that would be
    scored, but have no modality that the model knows.  ``modalities``: of how many scored cells the embedding was made of
    each; ``several``: how many have two of them or more.
    """

    names: npt.NDArray[np.str_]
    row: Index
    scored: Bools
    train: Bools
    heldout: Bools
    which: str
    labels: Groups | None
    batches: Groups | None
    left_out: int = 0
    modalities: dict[str, int] = field(default_factory=dict)
    several: int = 0


def read_embedding(path: Path) -> Embedding:
    """The embedding of a file, without its counts; refused where there is none or it is not finite."""
    import h5py
    from anndata.io import read_elem

    from xmodal.data.io import file_kind, refusing

    kind = file_kind(path)
    if kind not in ("h5ad", "h5mu"):
        raise InputRefused(
            "an embedding must be an h5mu or h5ad", where=str(path), do="give what `xmodal embed --output E.h5mu` wrote"
        )
    with refusing(path), h5py.File(path, "r") as file:
        held = file.get("obsm", {})
        found = {k: np.asarray(read_elem(held[k])) for k in held if k.startswith(fields.EMBEDDING)}
        names = read_elem(file["obs"]).index.to_numpy(str)
        uns = file.get("uns", {})
        key = next((k for k in (fields.EMBEDDING_ABOUT, fields.UNS) if k in uns), None)
        about = _decoded(read_elem(uns[key])) if key else {}
    if fields.EMBEDDING not in found:
        raise InputRefused(
            f"there is no embedding in it (obsm['{fields.EMBEDDING}'])", where=str(path), do="run xmodal embed first"
        )
    z = found.pop(fields.EMBEDDING).astype(np.float32)
    _require_sound(z, names, str(path))
    start = f"{fields.EMBEDDING}_"
    alone = {k.removeprefix(start): v.astype(np.float32) for k, v in sorted(found.items()) if k.startswith(start)}
    return Embedding(str(path), names, z, alone, about)


def _decoded(about: Any) -> dict[str, Any]:
    if not isinstance(about, dict) or about.get("schema") != fields.EMBEDDING_SCHEMA:
        return {}
    known = {str(k): v.item() if hasattr(v, "item") else v for k, v in about.items()}
    try:
        return known | {"settings": json.loads(str(known.get("settings", "{}")))}
    except ValueError:
        return known | {"settings": {}}


def _require_sound(z: Array, names: npt.NDArray[np.str_], where: str) -> None:
    if z.ndim != 2 or min(z.shape) == 0:
        raise InputRefused(f"the embedding has the shape {z.shape}", where=where, do="run xmodal embed again")
    if len(np.unique(names)) < len(names):
        raise InputRefused("cell names are duplicated", where=where, do="make obs_names unique and embed again")
    bad = names[~np.isfinite(z).all(1)]
    if len(bad):
        raise InputRefused(
            f"{len(bad)} of {len(names)} cells have values that are not finite, first {', '.join(bad[:3])}",
            where=where,
            do="embed again, without cells in which nothing was measured; look at the training's warnings",
        )


def require_checkpoint(checkpoint: Path, embedding: Embedding) -> None:
    """Refuse an embedding that says it was made by another checkpoint."""
    given_results.require_checkpoint(checkpoint, {embedding.where: embedding.about.get("checkpoint_sha256")}, "embed")


def scene(mdata: MuData, embedding: Embedding, settings: EvaluationSettings) -> Scene:
    """The cells that are scored and those that are known, in the order of the truth.

    Raises :class:`InputRefused` where truth and embedding do not belong together, or there are too few cells.
    """
    for option, key in (("--label-key", settings.label_key), ("--batch-key", settings.batch_key)):
        require_column(mdata.obs, key, option)
    row = given_results.rows(mdata, embedding.cells, embedding.where)
    there = row >= 0
    part = (
        mdata.obs[fields.SPLIT].astype(str).to_numpy() if fields.SPLIT in mdata.obs else np.full(len(row), "", object)
    )
    which = given_results.which(part[there], embedding.about.get("settings", {}).get("split"), settings.cells)
    scored = there & (part == which) if which != "all" else there
    absent = (part == which) & ~there
    measured = _measured(mdata, embedding)
    number = np.sum(list(measured.values()), axis=0)
    able = number > 0
    missing = mdata.obs_names[absent & able]
    if len(missing):
        raise InputRefused(
            f"{len(missing)} {which} cells of the truth have no embedding, first {', '.join(missing[:3])}",
            where=embedding.where,
            do=f"embed all {which} cells, or give --cells all to score those there are",
        )
    _require_enough(int(scored.sum()), which, embedding.where)
    train = there & np.isin(part, learned_parts(which))
    heldout = scored & ~train & (part == (fields.TEST if which == "all" else which))
    used = scored | train
    return Scene(
        names=mdata.obs_names[used].to_numpy(str),
        row=row[used],
        scored=scored[used],
        train=train[used],
        heldout=heldout[used],
        which=which,
        labels=groups_of(mdata.obs, settings.label_key, used),
        batches=groups_of(mdata.obs, settings.batch_key, used),
        left_out=int((absent & ~able).sum()),
        modalities={m: int((scored & has).sum()) for m, has in measured.items() if (scored & has).any()},
        several=int((scored & (number > 1)).sum()),
    )


def _measured(mdata: MuData, embedding: Embedding) -> dict[str, Bools]:
    """For each modality of the truth that the embedding was made of (all, where it does not say): which cells have it."""
    said = [m for m in embedding.about.get("settings", {}).get("modalities") or {} if m in mdata.mod]
    return {m: mdata.obs_names.isin(mdata.mod[m].obs_names) for m in said or mdata.mod}


def _require_enough(cells: int, which: str, where: str) -> None:
    if cells <= NEIGHBORS:
        kind = "" if which == "all" else f"{which} "
        raise InputRefused(
            f"there are {cells} {kind}cells with an embedding; with {NEIGHBORS} neighbours {NEIGHBORS + 1} are needed",
            where=where,
            do="give more cells" if which == "all" else "give --cells all, or more of them (xmodal prepare)",
        )


def require_column(obs: pd.DataFrame, key: str | None, option: str) -> None:
    if key is not None and key not in obs:
        from xmodal.data.splits import near

        raise InputRefused(f"obs has no column '{key}'", where=option, do=near(key, list(obs.columns)))


def groups_of(obs: pd.DataFrame, key: str | None, used: Bools) -> Groups | None:
    """The column ``key`` of the cells ``used``; None where none was asked for."""
    if key is None:
        return None
    column = obs[key][used]
    text = column.astype(object).where(column.notna(), "").astype(str).to_numpy(str)
    names = np.unique(text[text != ""])
    codes = np.searchsorted(names, text)
    codes[text == ""] = -1
    return Groups(key, codes.astype(np.int64), names)
