"""What each score of an embedding is called and means, in one place for report, MultiQC, pictures and docs."""

from __future__ import annotations

from collections.abc import Iterable

from xmodal.scores.score_texts import ScoreText, shown

TEXTS = {
    "knn_accuracy": ScoreText(
        "Neighbours name the label",
        "Share of the scored cells whose 15 nearest name their label rightly by majority.",
    ),
    "knn_accuracy_heldout": ScoreText(
        "Training cells name the label",
        "Share of held-out cells whose 15 nearest training cells name their label rightly: are new cells put where they "
        "belong?",
    ),
    "ari": ScoreText(
        "Clusters against labels (ARI)",
        "Do as many Leiden clusters as there are labels agree with them? 0 is chance, 1 is perfect; differences of .03 "
        "are noise.",
        chance=0.0,
    ),
    "nmi": ScoreText(
        "Clusters against labels (NMI)",
        "The same as shared information, from 0 to 1; rare labels weigh more than in ARI.",
        chance=0.0,
    ),
    "silhouette": ScoreText(
        "Silhouette of the labels",
        "Are cells nearer to those of their own label than to those of the next? From -1 to 1; 0 is a border.",
        chance=0.0,
    ),
    "ilisi": ScoreText(
        "Batches around a cell (iLISI)",
        "How many batches lie around a cell: 0 its own only, 1 all alike. Batches of unlike sizes or cell types cannot "
        "reach 1, so compare with the other methods.",
        chance=0.0,
    ),
    "kbet": ScoreText(
        "Batches mixed as everywhere (kBET)",
        "Share of cells around which the batches are as frequent as in all cells, by a chi-square test.",
        chance=0.0,
    ),
    "foscttm": ScoreText(
        "Other cells nearer than the own half (FOSCTTM)",
        "Each modality embedded alone: share of the other modality's cells that are nearer than the cell itself. 0 is "
        "perfect, 0.5 is chance.",
        "lower",
        0.5,
    ),
    "label_match": ScoreText(
        "Nearest cell of the other modality has the label",
        "Each modality embedded alone: share of cells whose nearest cell by the other modality has the same label.",
    ),
}
SHORT = {
    "knn_accuracy": "15-NN accuracy",
    "knn_accuracy_heldout": "15-NN accuracy, held out",
    "ari": "ARI of clusters",
    "nmi": "NMI of clusters",
    "silhouette": "silhouette",
    "ilisi": "batch mixing, iLISI",
    "kbet": "batch mixing, kBET",
}
METHODS = {
    "embedding": "the joint embedding that is judged here",
    "rna_pca": "PCA of log-normalised RNA",
    "rna_pearson": "PCA of Pearson residuals of RNA, which leave depth out",
    "atac_lsi": "latent semantic indexing of ATAC",
    "protein_pca": "PCA of CLR-normalised protein",
    "concatenated": "those of the modalities side by side, equally scaled",
    "wnn": "weighted nearest neighbours of them, a graph without coordinates",
    "wnn_pearson": "the same with Pearson residuals of RNA",
}
OF_METHODS = ("knn_accuracy", "knn_accuracy_heldout", "ari", "nmi", "silhouette", "ilisi", "kbet")
MEETING = ("foscttm", "label_match")
WITHOUT_DEPTH, DEPTH = "_without_depth", "depth_r2_"


def text_of(score: str) -> ScoreText:
    """The text of ``score``, of one modality's depth or one pair of modalities too."""
    if score in TEXTS:
        return TEXTS[score]
    if score.startswith(DEPTH):
        within, trees, modality = _of_depth(score)
        how = "by gradient-boosted trees, which also find what is not linear" if trees else "by ridge regression"
        inside = "Among cells of one label: s" if within else "S"
        name = f"{shown(modality)} depth told{' inside labels' if within else ''} ({'trees' if trees else 'ridge'})"
        says = f"{inside}hare of the variance of the log {shown(modality)} counts that the embedding tells, {how}."
        return ScoreText(name, f"{says} 0 is nothing, as it should be.", "lower", 0.0)
    base = next((b for b in MEETING if score.startswith(b)), None)
    if base is None:
        return ScoreText(score.replace("_", " "), "", "none")
    rest, text = score.removeprefix(base), TEXTS[base]
    pair = rest.removeprefix(WITHOUT_DEPTH).strip("_")
    ending = (", depth taken out" if rest.startswith(WITHOUT_DEPTH) else "") + (f", {pair}" if pair else "")
    more = " Both depths were regressed out of each first." if rest.startswith(WITHOUT_DEPTH) else ""
    return ScoreText(text.name + ending, text.says + more, text.better, text.chance)


def short(score: str) -> str:
    """The title of a small panel or column."""
    if not score.startswith(DEPTH):
        return SHORT.get(score, text_of(score).name)
    within, trees, modality = _of_depth(score)
    return f"{shown(modality)} depth, {'trees' if trees else 'ridge'}{', in labels' if within else ''}"


def _of_depth(score: str) -> tuple[bool, bool, str]:
    """(inside labels?, by trees?, modality) of ``depth_r2_[within_][trees_]MODALITY``."""
    rest = score.removeprefix(DEPTH)
    within = rest.startswith("within_")
    rest = rest.removeprefix("within_")
    return within, rest.startswith("trees_"), rest.removeprefix("trees_")


def of_methods(scores: Iterable[str]) -> list[str]:
    """Those of ``scores`` on which methods are compared, in the order of a table: labels, batches, depth."""
    there = set(scores)
    return [s for s in OF_METHODS if s in there] + sorted((s for s in there if s.startswith(DEPTH)), key=_order)


def headline(scores: Iterable[str]) -> list[str]:
    """The few for a picture: of depth the strictest, by trees, inside labels where there are some."""
    every = of_methods(scores)
    strict = [s for s in every if s.startswith(DEPTH) and _of_depth(s)[1]]
    inside = {_of_depth(s)[2] for s in strict if _of_depth(s)[0]}
    kept = {s for s in strict if _of_depth(s)[0] or _of_depth(s)[2] not in inside}
    return [s for s in every if not s.startswith(DEPTH) or s in kept]


def of_meeting(scores: Iterable[str]) -> list[str]:
    """Those of ``scores`` that say how well modalities meet."""
    return sorted((s for s in scores if s.startswith(MEETING)), key=lambda s: (WITHOUT_DEPTH in s, s))


def _order(score: str) -> tuple[str, bool, bool]:
    within, trees, modality = _of_depth(score)
    return modality, within, trees
