"""What is measured of a model on simulated cells: predictions, what its embedding tells, whether cells find themselves."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from xmodal.data.batches import Cells
from xmodal.data.vocabulary import Labels, Modality, Vocabulary
from xmodal.fields import (
    ATAC,
    BERNOULLI,
    BINARY,
    GAUSSIAN,
    IDENTITY,
    LABEL_CODE,
    LOG_CP10K,
    NB,
    PROTEIN,
    RNA,
    SPLIT,
    TEST,
    TRAIN,
    VALID,
)
from xmodal.scores.embedding_measures import matching
from xmodal.simulation.simulation_oracle import pearson, read_out, values_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from xmodal.models.base import CrossModalModel
    from xmodal.simulation.simulate import Simulated

Array = npt.NDArray[Any]
KINDS = {RNA: (NB, LOG_CP10K), ATAC: (BERNOULLI, BINARY), PROTEIN: (GAUSSIAN, IDENTITY)}
LABELS = ("type", "state", "joint")
STEP = 512
NEIGHBOURS = 15


def labels_of_simulation(simulated: Simulated) -> tuple[Labels, Array]:
    """The types with their distances along the simulator's tree, and the type of each cell."""
    types = simulated.types
    ids = tuple(types.loc[types["is_leaf"], "id"].astype(str))
    labels = Labels("type", ids, ids, tuple(tuple(map(int, row)) for row in simulated.truth["type_distances"]))
    return labels, labels.codes(simulated.obs["type"].astype(str))


def cells_of_simulation(simulated: Simulated, labelled: bool = False) -> dict[str, Cells]:
    """Training, validation and test cells, as `xmodal prepare` would leave them without a filter.

    ``labelled``: the types of training cells are known to models that learn them; those of the others are taken away.
    """
    parts = simulated.mdata.mod
    modalities = {m: Modality(m, *KINDS[m], tuple(map(str, part.var_names))) for m, part in parts.items()}
    counts = {m: part.X.astype(np.float32) for m, part in parts.items()}
    names = simulated.obs.index.to_numpy(str)
    depth = {m: np.asarray(x.sum(1), np.float32).ravel() for m, x in counts.items()}
    everyone = {m: np.ones(len(names), bool) for m in counts}
    labels, codes = labels_of_simulation(simulated)
    vocabulary = Vocabulary(modalities, labels=labels if labelled else None)
    cells = Cells(vocabulary, names, counts, depth, everyone, {LABEL_CODE: codes} if labelled else {})
    split = simulated.obs[SPLIT].to_numpy()
    parts = {part: cells.subset(np.flatnonzero(split == part)) for part in (TRAIN, VALID, TEST)}
    if labelled:
        for part in (VALID, TEST):
            parts[part].extra[LABEL_CODE][:] = -1
    return parts


def chunked(cells: Cells, work: Callable[[Any], torch.Tensor]) -> Array:
    """``work`` of each batch of ``cells``, one below the other."""
    with torch.no_grad():
        return torch.cat([work(cells.batch(slice(i, i + STEP))) for i in range(0, len(cells), STEP)]).numpy()


def prediction_scores(simulated: Simulated, target: str, predicted: Array, test: Cells) -> dict[str, float]:
    """Mean Pearson correlation over all features of ``target``, and over those that follow a product of bits."""
    each = pearson(predicted.astype(np.float64), test.values(target).astype(np.float64))
    return {"all": float(each.mean()), "coupled": float(each[simulated.truth[f"coupled_{target}"]].mean())}


def probe(train: Array, label: Array, test: Array) -> Array:
    """Labels of ``test`` cells by logistic regression on standardised coordinates."""
    from sklearn.linear_model import LogisticRegression

    centre, spread = train.mean(0), train.std(0)
    spread = np.where(spread > 1e-6, spread, np.inf)
    fitted = LogisticRegression(C=1.0, max_iter=300).fit((train - centre) / spread, label)
    found: Array = fitted.predict((test - centre) / spread)
    return found


def lacking(test: Cells, seed: int) -> dict[str, Array]:
    """Which test cells lack a modality: of a random half of the cells one each, in turn."""
    order = np.random.default_rng([seed, 7]).permutation(len(test))[: len(test) // 2]
    return {RNA: np.sort(order[::2]), ATAC: np.sort(order[1::2])}


def without(cells: Cells, modality: str, rows: Array | slice = slice(None)) -> Cells:
    """The cells as if in ``rows`` the ``modality`` had not been measured."""
    present = cells.present[modality].copy()
    present[rows] = False
    return replace(cells, present={**cells.present, modality: present})


def label_scores(
    simulated: Simulated, embed: Callable[[Cells], Array], parts: dict[str, Cells], seed: int
) -> dict[str, float]:
    """Accuracy of each label by a probe on the embedding; ``..._missing``: where half of the test cells lack one modality.

    The probe for these learns from the training cells as they are and with either modality taken away.
    """
    train, test = parts[TRAIN], parts[TEST]
    obs, found = simulated.obs, {}
    few = test
    for m, rows in lacking(test, seed).items():
        few = without(few, m, rows)
    whole, full, some = embed(train), embed(test), embed(few)
    each = np.concatenate([whole, embed(without(train, RNA)), embed(without(train, ATAC))])
    for label in LABELS:
        known, true = (obs.loc[c.names, label].to_numpy(str) for c in (train, test))
        found[label] = float((probe(whole, known, full) == true).mean())
        if label != "joint":
            found[f"{label}_missing"] = float((probe(each, np.tile(known, 3), some) == true).mean())
        if label == "type":
            found["type_15nn"] = nearest(whole, known, full, true)
    return found


def nearest(train: Array, label: Array, test: Array, true: Array) -> float:
    """Share of ``test`` cells of which most of the 15 nearest training cells have the right label."""
    from sklearn.neighbors import KNeighborsClassifier

    return float((KNeighborsClassifier(NEIGHBOURS).fit(train, label).predict(test) == true).mean())


def dedicated_scores(
    simulated: Simulated,
    embed: Callable[[Cells], Array],
    single: dict[str, Callable[[Cells], Array]],
    parts: dict[str, Cells],
    seed: int,
) -> dict[str, float]:
    """``..._missing`` where cells that lack a modality are read by a model that knows the other one only."""
    train, test = parts[TRAIN], parts[TEST]
    lack, found = lacking(test, seed), {}
    for label in ("type", "state"):
        known, true = (simulated.obs.loc[c.names, label].to_numpy(str) for c in (train, test))
        called = probe(embed(train), known, embed(test)).astype(object)
        for gone, rows in lack.items():
            other = single[ATAC if gone == RNA else RNA]
            called[rows] = probe(other(train), known, other(test.subset(rows)))
        found[f"{label}_missing"] = float((called == true).mean())
    return found


def oracle_labels(simulated: Simulated) -> dict[str, float]:
    """Accuracy of a probe on the true bits, coins and traits as ridge regression reads them out of both modalities."""
    test = (simulated.obs[SPLIT] == TEST).to_numpy()
    train = (simulated.obs[SPLIT] == TRAIN).to_numpy()
    read = []
    for m, side in ((RNA, "r"), (ATAC, "p")):
        truth = np.hstack([simulated.truth[side], simulated.truth[f"q_{m}"], simulated.truth["y"]])
        read.append(read_out(values_of(m, simulated.mdata.mod[m].X), truth, test))
    both = np.hstack(read)
    return {
        label: float(
            (
                probe(both[train], simulated.obs[label].to_numpy(str)[train], both[test])
                == simulated.obs[label].to_numpy(str)[test]
            ).mean()
        )
        for label in LABELS
    }


def foscttm(model: CrossModalModel, test: Cells) -> float:
    """Share of cells of the other modality that are nearer than the cell itself, in what any modality alone can tell."""
    shared = getattr(model, "shared", model.embed)
    alone = [chunked(test, lambda batch, m=m: shared(batch.only(m))) for m in (RNA, ATAC)]
    return matching(*alone, None)[0]
