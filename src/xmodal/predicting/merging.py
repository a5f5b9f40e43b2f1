"""Joining the predictions of row ranges: the result is the file that one run over all rows would have written."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from xmodal import fields, progress
from xmodal.errors import InputRefused
from xmodal.predicting import streaming, threshold, top
from xmodal.predicting.measured import PREDICTION_SCHEMA
from xmodal.predicting.prediction import BATCH, summary

SAME = ("model", "checkpoint_sha256", "source", "target", "settings", "version")


def merge(paths: list[Path], output: Path, overwrite: bool = False) -> dict[str, Any]:
    """Merge h5ad predictions into ``output``; returns its summary.

    Refuses parts of different runs, gaps and overlaps, naming the rows.
    """
    import anndata as ad
    import pandas as pd

    parts = sorted((_open(path) for path in paths), key=_range)
    try:
        about = dict(parts[0].uns[fields.UNS])
        _require_whole(parts, about)
        about.pop("rows", None)
        obs = ad.concat([ad.AnnData(obs=p.obs) for p in parts], join="outer").obs if len(parts) > 1 else parts[0].obs
        obs = _categories_of(parts, obs)
        each = progress.along(parts, len(parts), "merging", "shards")
        if top.top_of(about):
            tops = (chunk for part in each for chunk in top.read(part.handle, BATCH))
            top.write_h5ad(output, pd.DataFrame(obs), parts[0].var, about, tops, overwrite)
        elif threshold.threshold_of(about) is not None:
            kept = (chunk for part in each for chunk in threshold.read(part.handle, BATCH))
            frames = (pd.DataFrame(obs), parts[0].var)
            threshold.write_h5ad(output, frames, about, kept, overwrite, float("inf"))
        else:
            streaming.write_h5ad(output, pd.DataFrame(obs), parts[0].var, about, _chunks(each), overwrite)
        return summary(about, len(parts[0].var))
    finally:
        for part in parts:
            part.handle.close()


@dataclass(frozen=True)
class Part:
    """One file, its matrices left on disk: AnnData would read layers whole even where it is backed."""

    filename: Path
    handle: h5py.File
    obs: Any
    var: Any
    uns: dict[str, Any]

    @property
    def n_obs(self) -> int:
        return len(self.obs)


def _open(path: Path) -> Part:
    from anndata.io import read_elem

    from xmodal.data.io import file_kind, refusing

    if file_kind(path) != "h5ad":
        raise InputRefused("only .h5ad predictions can be merged", where=str(path), do="predict shards to .h5ad")
    with refusing(path):
        handle = h5py.File(path, "r")
        part = Part(path, handle, *(read_elem(handle[k]) for k in ("obs", "var", "uns")))
    about = part.uns.get(fields.UNS, {})
    if not hasattr(about, "get") or about.get("schema") not in (PREDICTION_SCHEMA, fields.LATENT_SCHEMA):
        raise InputRefused(
            "this is not a prediction of xmodal", where=str(path), do="give files that xmodal predict wrote"
        )
    return part


def _range(part: Part) -> tuple[int, int]:
    text = part.uns[fields.UNS].get("rows", f"0:{part.n_obs}")
    first, last = str(text).split(":")
    return int(first), int(last)


def _require_whole(parts: list[Part], about: dict[str, Any]) -> None:
    import json

    for part in parts[1:]:
        for key in SAME:
            if part.uns[fields.UNS].get(key) != about.get(key):
                raise InputRefused(
                    f"the parts differ in '{key}'", where=str(part.filename), do="merge parts of one prediction only"
                )
    expected = 0
    for part in parts:
        first, last = _range(part)
        if first != expected:
            what = (
                f"rows {expected}:{first} are missing"
                if first > expected
                else f"rows {first}:{expected} are there twice"
            )
            raise InputRefused(what, where=str(part.filename), do="give each shard once")
        expected = last
    total = json.loads(about["settings"])["cells"]
    if expected != total:
        raise InputRefused(f"rows {expected}:{total} are missing", do="give all shards")


def _categories_of(parts: list[Part], obs: Any) -> Any:
    """Categories as one run would have written them: concatenation turns differing categories into strings."""
    import pandas as pd

    for column in obs:
        if all(isinstance(p.obs[column].dtype, pd.CategoricalDtype) for p in parts):
            each = [list(p.obs[column].cat.categories) for p in parts]
            known = each[0] if all(e == each[0] for e in each) else sorted({c for e in each for c in e})
            obs[column] = pd.Categorical(obs[column].astype(object), categories=known)
    return obs


def _chunks(parts: Iterable[Part]) -> streaming.Chunks:
    for part in parts:
        about = part.uns[fields.UNS]
        places = (streaming.MATRIX, *(streaming.LAYERS if streaming.has_intervals(about) else ()))
        for start in range(0, part.n_obs, BATCH):
            rows = slice(start, start + BATCH)
            yield {place: np.asarray(part.handle[place][rows], np.float32) for place in places}
