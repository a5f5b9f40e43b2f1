"""Which cells a model is fitted to and which it chooses on, and whether they are enough."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xmodal import fields, registry
from xmodal.data import splits
from xmodal.data.batches import Cells, joined
from xmodal.data.batches import reference_of as obsm_of
from xmodal.data.vocabulary import Batches, Reference
from xmodal.errors import InputRefused, ModelRefused, NotApplicable
from xmodal.models.base import GradientSettings

if TYPE_CHECKING:
    from mudata import MuData

    from xmodal.models.base import CrossModalModel, ModelSettings

log = logging.getLogger(__name__)
ENOUGH_TO_JUDGE = 2
MOST_BATCHES = 1_000


def split(
    mdata: MuData, cells: Cells, about: dict[str, Any], *, seed: int, trial: bool
) -> tuple[Cells, Cells, dict[str, Any]]:
    """Training and validation cells by the file's own split, and its facts; validation cells are drawn where it has none.

    Of a ``trial`` the file's validation cells are neither: they judge it.
    """
    if trial:
        part, facts = splits.for_trial(mdata.obs)
    elif fields.SPLIT in mdata.obs:
        part, facts = splits.from_file(mdata.obs, seed)
    else:
        part, facts = splits.assign(mdata.obs, by=None, seed=seed)
    text = np.asarray(part.astype(str))
    recorded = about.get("split", {})
    if all(
        recorded.get(p) == facts.get(p) for p in (fields.TRAIN, fields.TEST)
    ):  # else somebody changed the column since
        facts = {**facts, **{k: v for k, v in recorded.items() if k not in (fields.TRAIN, fields.VALID, fields.TEST)}}
    return cells.subset(np.flatnonzero(text == fields.TRAIN)), cells.subset(np.flatnonzero(text == fields.VALID)), facts


def batches_of(
    mdata: MuData, model_class: type[CrossModalModel], key: str | None, warnings: list[str]
) -> Batches | None:
    """The technical batches of the cells that are not test cells; None, and why, where there is nothing to take out.

    ``key``: the obs column asked for; without it the samples are the batches, where there are several.
    """
    if not model_class.takes_batches:
        if key is not None:
            warnings.append(f"--batch-key {key} is not used: model '{model_class.name}' takes no batches out")
            log.warning(warnings[-1])
        return None
    if key is not None and key not in mdata.obs:
        raise InputRefused(
            f"obs has no column '{key}'", where="--batch-key", do=splits.near(key, list(mdata.obs.columns))
        )
    column = mdata.obs.get(key or fields.SAMPLE)
    if column is None:
        return None
    if fields.SPLIT in mdata.obs:
        column = column[(mdata.obs[fields.SPLIT].astype(str) != fields.TEST).to_numpy()]
    values = tuple(sorted({str(v) for v in column.dropna()}))
    if len(values) < 2:
        if key is not None:
            warnings.append(f"--batch-key {key}: the training cells are of one batch, so there is none to take out")
            log.warning(warnings[-1])
        return None
    if len(values) > MOST_BATCHES:
        raise InputRefused(
            f"obs['{key or fields.SAMPLE}'] has {len(values)} values; more than {MOST_BATCHES} are no batches",
            where="--batch-key",
            do="name the column of the technical batch (plate, lane, donor, ...)",
        )
    return Batches(key or fields.SAMPLE, values)


def reference_of(
    mdata: MuData, model_class: type[CrossModalModel], settings: ModelSettings, path: Path
) -> Reference | None:
    """The obsm that the settings name as reference; refused where no cell has it."""
    key = model_class.reference_key(settings)
    if key is None:
        return None
    values = obsm_of(mdata, key)
    if values is None or values.ndim != 2 or not np.isfinite(values).all(1).any():
        known = sorted(
            {*(k for k in mdata.obsm if k not in mdata.mod), *(k for a in mdata.mod.values() for k in a.obsm)}
        )
        raise InputRefused(
            f"there is no embedding obsm['{key}']",
            where=str(path),
            do=f"it has {', '.join(known)}" if known else "leave --set reference out: the model then makes its own",
        )
    return Reference(key, values.shape[1])


def with_pairs(train: Cells, valid: Cells, seed: int, warnings: list[str]) -> tuple[Cells, Cells]:
    """Training and validation cells such that the latter can judge every direction that is learned.

    Where no validation cell has both modalities of a direction, a tenth of the training cells that have them go over.
    """
    names = list(train.vocabulary)
    moved: set[int] = set()
    for a, b in [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]:
        both = np.flatnonzero(train.present[a] & train.present[b])
        if len(valid.having(a, b)) >= ENOUGH_TO_JUDGE or len(both) < 10 * ENOUGH_TO_JUDGE:
            continue
        rows = np.random.default_rng(seed).permutation(both)[: len(both) // 10]
        moved |= {int(r) for r in rows}
        warnings.append(
            f"no validation cell has both {a} and {b}: {len(rows)} training cells were taken for validation"
        )
        log.warning(warnings[-1])
    if not moved:
        return train, valid
    go = np.isin(np.arange(len(train)), list(moved))
    return train.subset(np.flatnonzero(~go)), joined(valid, train.subset(np.flatnonzero(go)))


def learned_from(model_class: type[CrossModalModel], cells: Cells, train: Cells, valid: Cells) -> Cells:
    """The training cells; for models that have nothing to choose the validation cells as well."""
    if issubclass(model_class.Settings, GradientSettings):
        return train
    return cells.subset(np.flatnonzero(np.isin(cells.names, [*train.names, *valid.names])))


def _paired(train: Cells) -> int:
    """Training cells with two modalities; all cells where the model learns from one."""
    names = list(train.vocabulary)
    if len(names) < 2:
        return len(train)
    return max(len(train.having(a, b)) for i, a in enumerate(names) for b in names[i + 1 :])


def too_few(model_class: type[CrossModalModel], train: Cells) -> str:
    """What is missing, where the paired cells are fewer than the model's minimum; else nothing."""
    paired = _paired(train)
    if paired >= model_class.min_cells:
        return ""
    kind = "paired training cells" if len(train.vocabulary.modalities) > 1 else "training cells"
    return f"{paired} {kind}; model '{model_class.name}' needs {model_class.min_cells}"


def require_enough(model_class: type[CrossModalModel], train: Cells, path: Path) -> None:
    names = list(train.vocabulary)
    if not _paired(train):
        raise NotApplicable(f"{path}: no training cell has two modalities; {model_class.name} learns from paired cells")
    for m in names:
        if not train.present[m].any():
            raise InputRefused(
                f"no training cell has {m}", where=str(path), do=f"leave {m} out, or give cells that have it"
            )
    if few := too_few(model_class, train):
        raise ModelRefused(few, where=str(path), do=_instead(model_class))


def _instead(model_class: type[CrossModalModel]) -> str:
    """What to do with too few cells: models that need fewer, least first to give up."""
    fewer = [(n, registry.get(n).min_cells) for n in ("linear", "mean")]
    can = [f"--fallback {n} ({needs})" for n, needs in fewer if needs < model_class.min_cells]
    return " or ".join(["prepare more cells", *can]) if can else "prepare more cells"
