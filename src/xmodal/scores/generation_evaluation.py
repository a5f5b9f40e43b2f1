"""Generated cells beside real ones and beside floors: every score of every method, in one space, macro over types."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from xmodal.scores import generation_measures as measures
from xmodal.scores.generation_input import MOST_CELLS, GeneratedCells, Scene, Space, scene
from xmodal.scores.generation_texts import (
    AROUND_ALL,
    AROUND_TYPE,
    KNN,
    NEIGHBOURS,
    NOISELESS,
    OWN,
    REAL,
    REDRAWN,
    SHUFFLED,
)
from xmodal.scores.metrics import Array, Floats, Index

if TYPE_CHECKING:
    from mudata import MuData

    from xmodal.scores.evaluation_settings import EvaluationSettings
    from xmodal.scores.scoring import Scores
    from xmodal.text.ontology import Ontology

log = logging.getLogger(__name__)
LEAST_VOTES = 25  # test cells of a type: 25 neighbours of a type of five cells are impossible


@dataclass(frozen=True)
class Cells:
    """Cells of one method: ``logged`` (cells, genes), ``placed`` (cells, components), ``types`` (cells,)."""

    logged: Array
    placed: Array
    types: Index

    def of(self, one: int) -> tuple[Array, Array]:
        own = self.types == one
        return self.logged[own], self.placed[own]


@dataclass
class Result:
    """Scores of each method, macro over types; ``types``: a row for each type with those of the generated and real cells."""

    scene: Scene
    generated: GeneratedCells
    methods: dict[str, Scores] = field(default_factory=dict)
    types: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def evaluate(
    mdata: MuData, generated: GeneratedCells, settings: EvaluationSettings, ontology: Ontology | None, seed: int
) -> Result:
    """Score ``generated``, the ceiling and the floors; raises :class:`InputRefused` where truth and cells do not fit."""
    found = scene(mdata, generated, settings, ontology)
    result = Result(found, generated, notes=list(found.notes))
    for text in found.notes:
        log.warning("%s", text)
    result.methods, rows = scored(found, seed, floors=settings.controls != "")
    result.types = [{"type": t, "name": n, **row} for t, n, row in zip(found.types, found.names, rows, strict=True)]
    if not any((found.test_type == i).sum() >= LEAST_VOTES for i in range(len(found.types))):
        result.notes.append(f"no type has {LEAST_VOTES} {found.which} cells, so neighbours are not asked")
    return result


def scored(found: Scene, seed: int, floors: bool = True) -> tuple[dict[str, Scores], list[dict[str, Any]]]:
    """Scores of each method, and for each type its cells and the scores of generated and real ones."""
    space = Space(found.train)

    def cells(counts: Array, types: Index) -> Cells:
        logged = space.logged(counts)
        return Cells(logged, space.placed(logged), types)

    test = cells(found.test, found.test_type)
    methods, each = {}, {}
    for name, make in _makers(found, seed).items():
        if name in (OWN, REAL) or floors:
            methods[name], each[name] = _scores(cells(*make()), test, space, seed)
            log.info(
                "%s: %s", name, " ".join(f"{k} {v:.4f}" for k, v in methods[name].items() if k in ("mmd2", "c2st"))
            )
    rows: list[dict[str, Any]] = []
    for one in range(len(found.types)):
        row: dict[str, Any] = {
            "train": int((found.train_type == one).sum()),
            found.which: int((found.test_type == one).sum()),
            "generated": int((found.generated_type == one).sum()),
        }
        rows.append(row | {f"{k}_{m}": v for m in (OWN, REAL) for k, v in each[m][one].items()})
    return methods, rows


def _makers(found: Scene, seed: int) -> dict[str, Callable[[], tuple[Array, Index]]]:
    """How to come by the cells of each method: counts (cells, genes) and types (cells,)."""
    own = found.generated_type
    depth = _depths(found, own, seed)
    known = found.train_type >= 0

    def shares(rows: Any) -> Floats:
        total = found.train[rows].sum(0, dtype=np.float64)
        out: Floats = total / max(total.sum(), 1)
        return out

    def of_types() -> Floats:
        return np.stack([shares(found.train_type == one) for one in range(len(found.types))])[own]

    def around(expected: Floats) -> Array:
        return np.random.default_rng([seed, 1]).poisson(expected * depth[:, None]).astype(np.float32)

    everywhere = np.ones(len(known), bool)
    return {
        OWN: lambda: (found.generated, own),
        REAL: lambda: _some(found.train[known], found.train_type[known], seed),
        REDRAWN: lambda: _redrawn(found, seed),
        AROUND_TYPE: lambda: (around(of_types()), own),
        NOISELESS: lambda: ((of_types() * np.median(depth)).astype(np.float32), own),
        AROUND_ALL: lambda: (around(np.tile(shares(everywhere), (len(own), 1))), own),
        SHUFFLED: lambda: (found.generated, _others(own, len(found.types))),
    }


def _depths(found: Scene, types: Index, seed: int) -> Floats:
    """Total counts for each cell, drawn from the training cells of its type, (cells,)."""
    rng = np.random.default_rng([seed, 2])
    total = found.train.sum(1, dtype=np.float64)
    drawn = np.ones(len(types))
    for one in np.unique(types):
        own = total[found.train_type == one]
        drawn[types == one] = rng.choice(own if len(own) else total, int((types == one).sum()))
    return drawn


def _some(counts: Array, types: Index, seed: int) -> tuple[Array, Index]:
    """At most MOST_CELLS cells of each type."""
    order = np.random.default_rng([seed, 3]).permutation(len(types))
    rows = np.sort(np.concatenate([order[types[order] == one][:MOST_CELLS] for one in np.unique(types)]))
    return counts[rows], types[rows]


def _redrawn(found: Scene, seed: int) -> tuple[Array, Index]:
    """Training cells drawn with replacement, as many of each type as were generated."""
    rng, types = np.random.default_rng([seed, 5]), found.generated_type
    rows = np.zeros(len(types), np.int64)
    there = np.zeros(len(types), bool)
    for one in np.unique(types):
        known = np.flatnonzero(found.train_type == one)
        if len(known):
            rows[types == one] = rng.choice(known, int((types == one).sum()))
            there |= types == one
    return found.train[rows[there]], types[there]


def _others(types: Index, number: int) -> Index:
    """Each type's cells as if another had been asked for: the one half the list away, so that no two are neighbours in it."""
    found: Index = (types + max(1, number // 2)) % number
    return found


def _scores(cells: Cells, test: Cells, space: Space, seed: int) -> tuple[Scores, dict[int, Scores]]:
    """Macro means over the types, and the scores of each."""
    there = [int(t) for t in np.unique(test.types) if t >= 0]
    each = {one: _of_type(cells.of(one), test.of(one), space) for one in there}
    votes = _votes(cells, test, there)
    for one, own in votes.items():
        each[one] |= own
    names = list(dict.fromkeys(k for own in each.values() for k in own))
    macro = {k: _mean([own[k] for own in each.values() if k in own]) for k in names}
    macro["c2st"] = _c2st(cells, test, there, seed)
    return {k: v for k, v in macro.items() if np.isfinite(v)}, each


def _mean(values: list[float]) -> float:
    finite = [v for v in values if np.isfinite(v)]
    return float(np.mean(finite)) if finite else float("nan")


def _of_type(own: tuple[Array, Array], real: tuple[Array, Array], space: Space) -> Scores:
    if len(own[0]) < 2:
        return {}
    (logged, placed), (true_logged, true_placed) = own, real
    mean, true_mean = logged.mean(0, dtype=np.float64), true_logged.mean(0, dtype=np.float64)
    some = space.variable
    return {
        "mmd2": measures.mmd2(placed, true_placed),
        "energy": measures.energy(placed, true_placed),
        "sliced_w2": measures.sliced_wasserstein(placed, true_placed),
        "w1": measures.wasserstein(logged[:, some], true_logged[:, some]),
        "r_mean": measures.pearson(mean, true_mean),
        "r_delta": measures.pearson(mean - space.mean, true_mean - space.mean),
        "variance_ratio": measures.variance_ratio(logged[:, some], true_logged[:, some]),
    }


def _votes(cells: Cells, test: Cells, there: list[int]) -> dict[int, Scores]:
    """Share of each type's cells whose nearest test cells are of it, for types with enough test cells."""
    out: dict[int, Scores] = {one: {} for one in there if (test.types == one).sum() >= LEAST_VOTES}
    for k in NEIGHBOURS if out else ():
        said = measures.neighbours_say(test.placed, test.types, cells.placed, k)
        for one in out:
            own = cells.types == one
            if own.any():
                out[one][f"{KNN}{k}"] = float((said[own] == one).mean())
    return out


def _c2st(cells: Cells, test: Cells, there: list[int], seed: int) -> float:
    """As many cells of each type on both sides."""
    rng = np.random.default_rng([seed, 4])
    own, real = [], []
    for one in there:
        a, b = np.flatnonzero(cells.types == one), np.flatnonzero(test.types == one)
        number = min(len(a), len(b))
        own.append(rng.permutation(a)[:number])
        real.append(rng.permutation(b)[:number])
    return measures.told_apart(cells.placed[np.concatenate(own)], test.placed[np.concatenate(real)], seed)
