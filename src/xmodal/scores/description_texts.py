"""What each score of descriptions is called and means, in one place for pictures and docs."""

from __future__ import annotations

from collections.abc import Iterable

from xmodal.scores.score_texts import ScoreText

OWN, LOOKUP, MAJORITY, WRONG = "description", "lookup", "majority", "wrong"
METHODS = {
    OWN: "the descriptions that are judged here",
    LOOKUP: "the same labels with their definitions, and nothing else",
    MAJORITY: "floor: name and definition of the most frequent type, for every cell",
    WRONG: "floor: name and definition of the most frequent type that the cell is not of",
}
WHOLE, WITH_GENES = "_whole", "_with_genes"
TEXTS = {
    "label_f1": ScoreText(
        "F1 of the type that the text names",
        "Mean over the known types; a text that names none is wrong. It should be that of the labels.",
    ),
    "ontology_distance": ScoreText(
        "Steps in the ontology",
        "Edges of the Cell Ontology between the type that the text names and the known one, mean over cells whose text names "
        "a term.",
        "lower",
    ),
    "bleu2": ScoreText("BLEU-2", "One and two words in a row that the reference has too, over the whole corpus."),
    "bleu4": ScoreText("BLEU-4", "The same with up to four words."),
    "rouge_l": ScoreText("ROUGE-L", "F1 of the longest common subsequence of words, mean over cells."),
    "rouge_l_macro": ScoreText("ROUGE-L, mean over types", "The same, every known type counting alike."),
    "meteor": ScoreText(
        "METEOR (exact words)", "Words in common in few pieces, recall weighing nine times; mean over cells."
    ),
    "cosine": ScoreText("Cosine of text and reference", "Of their vectors by the text model, mean over cells."),
    "textual_discrepancy": ScoreText(
        "Textual discrepancy",
        "Squared maximum mean discrepancy between the vectors of texts and of references: how unlike the two sets are as "
        "wholes. Unbiased, so it can be a little below 0.",
        "lower",
        0.0,
    ),
    "traceable": ScoreText(
        "Sentences that can be traced",
        "Share of sentences that name evidence and, without what it shows, hold no number, gene or type. Must be 1.",
    ),
    "evidence_true": ScoreText(
        "Evidence that comes out again", "Share of definitions, cells, figures and counts that the truth gives as well."
    ),
    "gene_claims_true": ScoreText(
        "Genes named that are true",
        "Share of genes named as high that are, in the cells in which they were not chosen: Wilcoxon (FDR), fold change, mean "
        "above the median of the other groups; in a cell also seen.",
    ),
    "genes_chosen_true": ScoreText(
        "Genes chosen that are true",
        "The same of all genes that were chosen in one half of the cells, also those that failed in the other and were not "
        "named.",
    ),
}
NGRAMS = ("bleu2", "bleu4", "rouge_l", "rouge_l_macro", "meteor", "cosine")
ORDER = (
    *("label_f1", "ontology_distance", "textual_discrepancy", *NGRAMS),
    *(f"textual_discrepancy{WITH_GENES}", f"textual_discrepancy{WHOLE}", *(f"{s}{WHOLE}" for s in NGRAMS)),
    *("traceable", "evidence_true", "gene_claims_true", "genes_chosen_true"),
)
HEADLINE = ("label_f1", "rouge_l", "cosine", "textual_discrepancy", f"textual_discrepancy{WITH_GENES}")


def text_of(score: str) -> ScoreText:
    """The text of ``score``, of whole texts too."""
    for ending, words in ((WHOLE, "of the whole text"), (WITH_GENES, "against references with genes")):
        if score.endswith(ending) and (base := TEXTS.get(score.removesuffix(ending))):
            return ScoreText(f"{base.name}, {words}", base.says, base.better, base.chance)
    return TEXTS.get(score, ScoreText(score.replace("_", " "), "", "none"))


def ordered(scores: Iterable[str]) -> list[str]:
    there = set(scores)
    return [s for s in ORDER if s in there]
