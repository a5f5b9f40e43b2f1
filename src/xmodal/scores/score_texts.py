"""What each score is called and means, in one place for report, MultiQC, pictures and docs."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class ScoreText:
    """``name`` for people, one sentence it ``says``, what is ``better``, and the value of guessing (``chance``)."""

    name: str
    says: str
    better: str = "higher"
    chance: float | None = None


TEXTS = {
    "cell_pearson_centred": ScoreText(
        "Per-cell correlation, average taken out",
        "For each cell: does the prediction say correctly which features are above and which below their "
        "average? Knowing the "
        "average cell gives 0, perfect is 1.",
        chance=0.0,
    ),
    "gene_pearson": ScoreText(
        "Per-gene correlation",
        "For each gene: do the cells predicted to have more of it really have more? 0 is chance, 1 is perfect; "
        "the mean over "
        "all genes seen in at least 5 test cells.",
        chance=0.0,
    ),
    "gene_pearson_top_hvg": ScoreText(
        "Per-gene correlation, 200 most variable genes",
        "The same, for the genes that differ most between cells, where there is something to predict. 0 is chance.",
        chance=0.0,
    ),
    "label_transfer": ScoreText(
        "Cells recognised as their type",
        "Share of cells whose predicted profile looks most like the true mean profile of their own type. "
        "Predicting the wrong types scores low, however neat the clusters; the mean shows what always guessing the most "
        "frequent type gives.",
    ),
    "label_transfer_macro": ScoreText(
        "Cells recognised as their type, mean over types",
        "The same, with every type counting alike, so that rare types are not drowned. One over the number of "
        "types is chance.",
    ),
    "gene_pearson_within_type": ScoreText(
        "Per-gene correlation inside types",
        "Per-gene correlation among the cells of one type: what is predicted beyond 'this is a neuron'. 0 is "
        "what the type's "
        "mean alone would reach.",
        chance=0.0,
    ),
    "peak_pearson_within_type": ScoreText(
        "Per-peak correlation inside types",
        "Per-peak correlation among the cells of one type: what is predicted beyond the type's average. 0 is "
        "chance; much of "
        "what is above comes from sequencing depth.",
        chance=0.0,
    ),
    "cell_pearson": ScoreText(
        "Per-cell correlation",
        "For each cell: correlation of predicted and true profile over all features. High even for the mean, "
        "since some genes "
        "are always high: compare with the controls only.",
    ),
    "rmse_log1p": ScoreText(
        "Error (RMSE, log1p CP10k)", "Typical size of the error on the log scale. Lower is better.", "lower"
    ),
    "rmse_clr": ScoreText("Error (RMSE, CLR)", "Typical size of the error on the CLR scale. Lower is better.", "lower"),
    "rmse": ScoreText("Error (RMSE)", "Typical size of the error in the units of the data. Lower is better.", "lower"),
    "variance_ratio_hvg": ScoreText(
        "Predicted over true variation",
        "How much the predictions vary between cells, against the measurements. 1 is the same; 0 is a flat "
        "prediction. Below 1 "
        "is normal, since counting noise cannot be predicted.",
        "none",
    ),
    "peak_auroc": ScoreText(
        "Per-peak AUROC",
        "For each peak: are cells in which it is open ranked above cells in which it is closed? 0.5 is chance, "
        "1 is perfect.",
        chance=0.5,
    ),
    "peak_auprc": ScoreText(
        "Per-peak average precision",
        "Per-peak precision over recall. Chance is the share of cells in which "
        "the peak is open, so compare with the controls.",
    ),
    "peak_auprc_over_prevalence": ScoreText(
        "Per-peak precision over chance",
        "How many times better than guessing the open cells of a peak are found. 1 is chance.",
        chance=1.0,
    ),
    "cell_auroc": ScoreText(
        "Per-cell AUROC",
        "For each cell: are its open peaks ranked above its closed ones? High even for the mean, since some "
        "peaks are open in "
        "most cells: compare with the controls only.",
    ),
    "cell_auprc": ScoreText(
        "Per-cell average precision", "Per-cell precision over recall over all peaks. Compare with the controls only."
    ),
    "flat_auroc": ScoreText(
        "AUROC over all values",
        "All cells and peaks in one ranking, so peak frequency and cell depth count "
        "as well. Compare with the controls only.",
    ),
    "flat_auprc": ScoreText(
        "Average precision over all values", "All cells and peaks in one ranking. Chance is the share of open values."
    ),
    "prevalence": ScoreText("Share of open values", "Not a score: how sparse the true data are.", "none"),
    "clusters_ari": ScoreText(
        "Clusters against labels (ARI)",
        "Do clusters of predicted profiles agree with the labels? Cannot tell right types from swapped ones.",
        "none",
    ),
    "clusters_knn15": ScoreText(
        "Neighbours of the same label",
        "Share of cells that their 15 neighbours among the predictions "
        "name correctly. Cannot tell right types from swapped ones.",
        "none",
    ),
}
# Titles of small panels.
SHORT = {
    "cell_pearson_centred": "cell correlation, centred",
    "gene_pearson": "gene correlation",
    "gene_pearson_top_hvg": "gene correlation, top 200",
    "label_transfer": "cells given their own type",
    "label_transfer_macro": "own type, mean over types",
    "gene_pearson_within_type": "gene corr. inside types",
    "peak_pearson_within_type": "peak corr. inside types",
    "peak_auroc": "peak AUROC",
    "peak_auprc_over_prevalence": "peak precision / chance",
    "cell_auroc": "cell AUROC",
}
SUFFIX = "_all"
WORDS = {"rna": "gene", "atac": "peak", "protein": "protein"}  # what a feature of a modality is called
# The scores that can tell a right prediction from a wrong one; a verdict counts these.
HEADLINE = (
    "gene_pearson",
    "gene_pearson_top_hvg",
    "cell_pearson_centred",
    "gene_pearson_within_type",
    "peak_auroc",
    "peak_auprc_over_prevalence",
    "cell_auroc",
    "peak_pearson_within_type",
    "label_transfer",
    "label_transfer_macro",
)


def text_of(score: str) -> ScoreText:
    """The text of ``score``; of ``<score>_all`` that of the score over all features and cells."""
    if score in TEXTS:
        return TEXTS[score]
    base = TEXTS.get(score.removesuffix(SUFFIX))
    if base is None:
        return ScoreText(score.replace("_", " "), "", "none")
    return ScoreText(
        f"{base.name} (all)", "The same over all features and cells instead of a draw.", base.better, base.chance
    )


def text_for(score: str, modality: str) -> ScoreText:
    """:func:`text_of`, in words that fit the modality: only RNA has genes; an unknown or empty one has features."""
    text = text_of(score)
    return replace(text, name=_worded(text.name, modality), says=_worded(text.says, modality))


def short_for(score: str, modality: str) -> str:
    """The title of a small panel or column, in words that fit the modality."""
    return _worded(SHORT.get(score, text_of(score).name), modality)


def _worded(text: str, modality: str) -> str:
    word = WORDS.get(modality, "feature")
    return text if word == "gene" else re.sub(r"\bgene(s?)\b", rf"{word}\1", text)


def better(score: str, value: float, other: float) -> bool:
    """Is ``value`` better than ``other``?"""
    return value < other if text_of(score).better == "lower" else value > other


def shown(modality: str) -> str:
    """A modality's name as people write it."""
    return {"rna": "RNA", "atac": "ATAC"}.get(modality, modality)
