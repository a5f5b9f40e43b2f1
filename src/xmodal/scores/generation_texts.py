"""What each score of generated cells is called and means, in one place for report, MultiQC, pictures and docs."""

from __future__ import annotations

from collections.abc import Iterable

from xmodal.scores.score_texts import ScoreText

OWN, REAL = "generated", "real"
NOISELESS, AROUND_TYPE, AROUND_ALL, SHUFFLED = "type_mean", "poisson_type", "poisson_all", "shuffled"
REDRAWN = "redrawn"
METHODS = {
    OWN: "the generated cells that are judged here",
    REAL: "ceiling: training cells of each type, against the same test cells",
    REDRAWN: "training cells drawn with replacement, as many as were generated: a model that knows them by heart",
    AROUND_TYPE: "floor: Poisson counts around the mean of each type's training cells",
    NOISELESS: "floor: the mean of each type's training cells, without noise",
    AROUND_ALL: "floor: Poisson counts around the mean of all training cells",
    SHUFFLED: "floor: the generated cells of another prompt",
}
KNN = "knn_accuracy_"
NEIGHBOURS = (3, 5, 10, 25)
HEADLINE_NEIGHBOURS = 10
TEXTS = {
    "mmd2": ScoreText(
        "Distance of distributions (MMD²)",
        "Squared maximum mean discrepancy in 50 principal components, mean over types: 0 where generated and test cells are "
        "draws of one distribution. The estimate is unbiased, so it can be a little below 0.",
        "lower",
        0.0,
    ),
    "variance_ratio": ScoreText(
        "Variance against that of real cells",
        "Median over 200 highly variable genes of the variance among generated cells of a type over that among its test "
        "cells; 1 is right, 0 a model that gives the same cell again and again.",
        "none",
        1.0,
    ),
    "c2st": ScoreText(
        "Told apart from real cells (C2ST)",
        "AUC of gradient boosting that tells generated from test cells, types matched. 0.5: it cannot. Training cells reach "
        "more than 0.5 where the components were fitted to few cells.",
        "lower",
        0.5,
    ),
    "r_delta": ScoreText(
        "What is particular of the type",
        "Pearson r between generated and test cells of (mean of the type - mean of all training cells), over genes, mean over "
        "types.",
        chance=0.0,
    ),
    "r_mean": ScoreText(
        "Mean expression",
        "Pearson r of the types' means over genes. Near 1 for anything, so it proves nothing.",
        chance=0.0,
    ),
    "energy": ScoreText(
        "Energy distance", "The same question as MMD², by Euclidean distances instead of kernels.", "lower", 0.0
    ),
    "sliced_w2": ScoreText(
        "Sliced Wasserstein distance", "How far cells would have to be moved, along 200 fixed directions.", "lower"
    ),
    "w1": ScoreText(
        "Earth mover's distance by gene",
        "How far the values of 200 highly variable genes would have to be moved.",
        "lower",
    ),
}
SHORT = {"mmd2": "MMD²", "variance_ratio": "variance ratio", "c2st": "C2ST (AUC)", "r_delta": "r of type - mean"}
HEADLINE = (f"{KNN}{HEADLINE_NEIGHBOURS}", "mmd2", "variance_ratio", "c2st")


def text_of(score: str) -> ScoreText:
    if score.startswith(KNN):
        k = score.removeprefix(KNN)
        return ScoreText(
            f"{k} neighbours name the prompt",
            f"Share of generated cells whose {k} nearest test cells are mostly of the type that was asked for, mean over types "
            "of at least 25 test cells. Alone it rewards a model without variance: the bare mean of a type beats real cells.",
        )
    return TEXTS.get(score, ScoreText(score.replace("_", " "), "", "none"))


def short(score: str) -> str:
    """The title of a small panel or column."""
    return f"{score.removeprefix(KNN)}-NN accuracy" if score.startswith(KNN) else SHORT.get(score, text_of(score).name)


def of_methods(scores: Iterable[str]) -> list[str]:
    """Those of ``scores`` that are there, the headline first."""
    there = set(scores)
    order = [*HEADLINE, "r_delta", *(f"{KNN}{k}" for k in NEIGHBOURS), *TEXTS]
    return [s for s in dict.fromkeys(order) if s in there]
