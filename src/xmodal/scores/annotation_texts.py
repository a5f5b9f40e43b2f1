"""What each score of labels is called and means, in one place for report, MultiQC, pictures and docs."""

from __future__ import annotations

from collections.abc import Iterable

from xmodal.scores.score_texts import ScoreText

OWN = "annotation"
CLUSTERS, MAJORITY, LOGISTIC, NEIGHBORS = "clusters", "majority", "logistic", "knn15"
METHODS = {
    OWN: "the best candidate of each cell, whether it was rejected or not",
    CLUSTERS: "the label of the cell's cluster",
    MAJORITY: "control: the most frequent type for every cell",
    LOGISTIC: "control: logistic regression on 50 principal components of the training cells",
    NEIGHBORS: "control: the vote of the 15 nearest training cells on the same components",
}
TEXTS = {
    "accuracy": ScoreText("Cells named rightly", "Share of the scored cells whose best candidate is their known type."),
    "macro_f1": ScoreText(
        "F1, mean over types",
        "Harmonic mean of how many cells of a type are found and how many so called are right; every known type counts "
        "alike, so that rare ones are not drowned.",
    ),
    "accuracy_macro": ScoreText(
        "Cells named rightly, mean over types", "The same share inside each known type, every type counting alike."
    ),
    "hit3": ScoreText(
        "Known type among the best three", "Share of cells whose known type is one of the three best candidates."
    ),
    "ontology_distance": ScoreText(
        "Steps in the ontology",
        "Edges of the Cell Ontology between the label and the known type over what both are a kind of, mean over cells: "
        "calling a CD4 T cell a T cell is a small error, calling it a neuron a large one.",
        "lower",
    ),
    "ece": ScoreText(
        "Calibration error",
        "How far probabilities are from what they promise (expected calibration error, 15 bins), over cells whose type is "
        "among the candidates. 0.05 means: off by five points on average.",
        "lower",
        0.0,
    ),
    "risk_coverage": ScoreText(
        "Wrong labels among the surest",
        "Share of wrong labels when only the surest cells are labelled, mean over all shares of cells (area under the "
        "risk-coverage curve).",
        "lower",
    ),
    "auroc_unseen": ScoreText(
        "Cells of types never seen told apart",
        "Chance that a cell of a type that was trained on is thought more familiar than one of a type that was not "
        "(AUROC). 0.5 is guessing.",
        chance=0.5,
    ),
    "accuracy_seen": ScoreText(
        "Types trained on: named rightly", "Mean over the known types that the model was trained on."
    ),
    "accuracy_unseen": ScoreText(
        "Types never seen: named rightly",
        "Mean over the known types that the model was not trained on; possible only where they are among the candidates.",
    ),
    "h": ScoreText(
        "Both together (H)",
        "Harmonic mean of the two: high only where types never seen are found without giving up those trained on.",
    ),
    "hit3_unseen": ScoreText(
        "Types never seen: among the best three", "Mean over the known types that the model was not trained on."
    ),
    "share_unknown": ScoreText("Cells left unknown", "Share of the scored cells that got no label.", "none"),
    "share_coarse": ScoreText(
        "Cells with a coarse label", "Share of the scored cells that got a more general term.", "none"
    ),
    "accuracy_assigned": ScoreText(
        "Assigned labels that are right", "Of the cells with a label of their own (neither coarse nor unknown)."
    ),
    "accuracy_called": ScoreText(
        "Labels that are true",
        "Of all cells with a label: those whose known type is that term or a kind of it, so a coarse label may be true.",
    ),
    "unknown_of_seen": ScoreText(
        "Wrongly left unknown", "Share of the cells of types trained on that got no label.", "lower"
    ),
    "unknown_of_unseen": ScoreText(
        "Rightly left unknown",
        "Share of the cells of types never seen that got no label (none is asked for otherwise).",
    ),
    "on_path": ScoreText(
        "Label and known type on one line",
        "Share of cells whose best candidate is the known type, a kind of it, or what it is a kind of: right up to how "
        "finely types were told apart.",
    ),
}
OF_METHODS = (
    *("accuracy", "macro_f1", "accuracy_macro", "hit3", "on_path", "ontology_distance", "ece", "risk_coverage"),
    *("auroc_unseen", "accuracy_seen", "accuracy_unseen", "h", "hit3_unseen"),
)
OF_CALLS = (
    *("share_unknown", "share_coarse", "accuracy_assigned", "accuracy_called"),
    *("unknown_of_seen", "unknown_of_unseen"),
)


def text_of(score: str) -> ScoreText:
    return TEXTS.get(score, ScoreText(score.replace("_", " "), "", "none"))


def of_methods(scores: Iterable[str]) -> list[str]:
    """Those of ``scores`` on which methods are compared, in the order of a table."""
    there = set(scores)
    return [s for s in OF_METHODS if s in there]


def of_calls(scores: Iterable[str]) -> list[str]:
    """Those of ``scores`` that are of labels as they stand in the file, with what was rejected."""
    there = set(scores)
    return [s for s in OF_CALLS if s in there]
