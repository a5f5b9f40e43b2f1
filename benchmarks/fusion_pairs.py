"""What is done to simulated cells, and measured, to see what interact's pretraining is worth and when it falls back.

Of the training and validation cells a share keeps both modalities; the others keep RNA or ATAC, in turn (`nothing else`: they
are left out).  Epochs are the same with and without pretraining.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from fusion_measures import chunked, prediction_scores

from xmodal.fields import ATAC, RNA, TEST

if TYPE_CHECKING:
    from xmodal.data.batches import Cells
    from xmodal.fusion.fused import Fused
    from xmodal.simulation.simulate import Simulated

WAYS = ((ATAC, RNA), (RNA, ATAC))
MODELS = {  # what is trained on the cells of each case, by its name in the table
    "linear": ("linear", []),
    "interact": ("interact", []),
    "interact, pretraining=0": ("interact", ["pretraining=0"]),
}
KEPT = (
    *(f"{s}_{t}_{what}" for s, t in WAYS for what in ("all", "network", "weight")),
    "type",
    "joint",
    "foscttm",
    "cpu_s",
)


@dataclass(frozen=True)
class Case:
    """``share`` of the cells keep both modalities; the ``others`` are kept as cells with one, or not."""

    share: float
    others: bool = True


FEW = (200, 100, 60)  # pairs, of 3,000 training cells
CASES = {
    "3,000 pairs": Case(1.0),
    "300 pairs": Case(0.1),
    **{f"{n} pairs, nothing else": Case(n / 3000, others=False) for n in FEW},
}
ROWS = tuple(f"{case}: {model}" for case in CASES for model in MODELS)


def few_pairs(cells: Cells, seed: int, share: float, others: bool = True) -> Cells:
    """A ``share`` of the cells keep both modalities, the others one; without ``others`` there are none."""
    order = np.random.default_rng([seed, 11]).permutation(len(cells))
    pairs, single = np.split(order, [round(share * len(cells))])
    if not others:
        return cells.subset(np.sort(pairs))
    present = {m: p.copy() for m, p in cells.present.items()}
    present[RNA][single[::2]] = False
    present[ATAC][single[1::2]] = False
    return replace(cells, present=present)


def parts_of(case: Case, parts: dict[str, Cells], seed: int) -> dict[str, Cells]:
    """Training and validation cells of a case; the test cells stay whole."""
    return {p: c if p == TEST else few_pairs(c, seed, case.share, case.others) for p, c in parts.items()}


def of_network(simulated: Simulated, model: Fused, test: Cells) -> dict[str, float]:
    """Both ways: the correlation of what the network tells without the linear part, and its weight in the blend."""
    found = {}
    for s, t in WAYS:
        own = chunked(test, lambda batch, s=s, t=t: model.from_network(batch.only(s), t))
        found[f"{s}_{t}_network"] = prediction_scores(simulated, t, own, test)["all"]
        found[f"{s}_{t}_weight"] = float(model.blend.get_buffer(f"weights_{s}_{t}")[0])
    return found
