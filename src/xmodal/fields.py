"""Names of everything xmodal reads from or writes into files.  No string key stands anywhere else."""

from __future__ import annotations

UNS = "xmodal"  # uns key of provenance, in h5ad and h5mu
SPLIT = "xmodal_split"  # obs: train, valid, test
TRAIN, VALID, TEST = "train", "valid", "test"
SAMPLE = "xmodal_sample"  # obs: the sample a cell came from
DEPTH = "xmodal_depth"  # mod[m].obs: total counts over all features of the file the modality came from
FLAG_EMPTY = "xmodal_empty"  # mod[m].obs: True where a cell has no counts at all in this modality
NOVELTY = "xmodal_novelty"  # obs of a prediction: -log10 of the share of training cells that are as odd as this cell
UNLIKE = "xmodal_unlike"  # obs of a prediction: True where that share is below one in a hundred
PREDICTED = "xmodal_predicted"  # layer of mod[target]: the prediction beside a measurement
LOWER, UPPER = "xmodal_lower", "xmodal_upper"  # layers beside a prediction: between which values a measurement lies
RELIABILITY = "xmodal_reliability"  # var of a prediction: Pearson r or AUROC of the feature on validation cells
RELIABILITY_LOW, RELIABILITY_HIGH = "xmodal_reliability_low", "xmodal_reliability_high"  # its 95 % interval
COVERAGE = "xmodal_coverage"  # var of a prediction: share of validation cells whose value was inside the interval
TRUST = "xmodal_trust"  # var of a prediction: what that amounts to, in a word
OF_FEATURES = (RELIABILITY, RELIABILITY_LOW, RELIABILITY_HIGH, COVERAGE, TRUST)

FP32, BF16, PRECISION_AUTO = "fp32", "bf16", "auto"  # numbers that training multiplies matrices in; as the device likes
PRECISION = "precision"  # in metrics.json, the record of a checkpoint and the state of a training

EMBEDDING = "X_xmodal"  # obsm: the joint embedding; X_xmodal_MODALITY: that of a modality alone
SCGPT, GENEFORMER = "X_scgpt", "X_geneformer"  # obsm: embeddings by foundation models from disk
CELL_MODEL = "xmodal_cell_model"  # uns: which of them, and the digest of its weights
UMAP = "X_umap"  # obsm: as every viewer calls it
# uns and obsp: the graph of cells, as scanpy calls it
NEIGHBORS, DISTANCES, CONNECTIVITIES = "neighbors", "distances", "connectivities"
CLUSTER = "xmodal_cluster"  # obs: Leiden cluster of the joint embedding
WEIGHT = "xmodal_weight"  # obs, with _MODALITY behind: share of the modality in the cell's embedding
IMPUTED = "xmodal_imputed"  # layer: denoised values
EMBEDDING_ABOUT, IMPUTED_ABOUT = "xmodal_embedding", "xmodal_imputation"  # uns: provenance of these
BATCH_CODE, REFERENCE, LABEL_CODE, TARGET_CODE = "batch", "reference", "label", "target"  # extra of cells in memory
LATENT = (
    "latent"  # the same: what a model predicts from, where it was computed before; and in settings how wide that is
)

# obs of annotated cells
TERM = "cell_type_ontology_term_id"  # as the CELLxGENE schema has it: an id of the Cell Ontology, or "unknown"
LABEL_COLUMN = "label"  # of a table of labels and what they mean, beside TERM
TERM_GIVEN = "cell_type_ontology_term_id_given"  # what the input had in that column
CT_LABEL, CT_SECOND = "ct_label", "ct_second_label"  # what the cell is called, and the second candidate: names
CT_SCORE, CT_MARGIN = (
    "ct_score",
    "ct_margin",
)  # calibrated probability of the label; of the best less the second candidate
CT_STATUS = "ct_status"  # one of the next
ASSIGNED, COARSE, UNKNOWN = "assigned", "coarse", "unknown"
CT_KNOWN = "ct_known"  # 0 to 1: high where the cell is of a type that the model was trained on
CT_TOP = "ct_top"  # the three best candidates: ID=probability|ID=probability|ID=probability
CT_CLUSTER = "ct_cluster"  # the cluster that votes
CT_CLUSTER_LABEL, CT_CLUSTER_SCORE = "ct_cluster_label", "ct_cluster_score"  # by the mean of its cells' probabilities
CT_CLUSTER_AGREEMENT = "ct_cluster_agreement"  # share of its cells whose own label that is
ANNOTATION_ABOUT = "xmodal_annotation"  # uns: provenance
TOLD, TOLD_PROBABILITY = (
    "{}_predicted",
    "{}_probability",
)  # what a cell is told to be in the column of --target, and how surely
CELLS_TOLD = "cells_told"  # of a class, in features.tsv of an overview
TARGET_ABOUT = "xmodal_target"  # uns of a copy of the cells: provenance of these columns

# obs of generated cells
SOURCE, GENERATED = "source", "generated"  # where a cell is from: none of these was measured
PROMPT = "prompt"  # what was asked for; also the column of a table of prompts
NEAREST, NEAREST_NAME = "nearest_type", "nearest_type_name"  # the training type whose text is nearest: its id, its name
NEAREST_COSINE = "nearest_cosine"  # of the prompt's text and that type's
EXTRAPOLATING = "extrapolating"  # True where the prompt is of no training type

RNA, ATAC, PROTEIN = "rna", "atac", "protein"
GENE_ID = "gene_id"  # var of rna: Ensembl id, where known
CHROM, START, END = "chrom", "start", "end"  # var of atac; 0-based, half-open
GENOME = "genome"  # uns of a file or modality

# Likelihoods a modality can have, and the scale on which it is predicted and scored.
NB, ZINB, BERNOULLI, GAUSSIAN = "nb", "zinb", "bernoulli", "gaussian"
LOG_CP10K, BINARY, CLR, IDENTITY = "log1p_cp10k", "binary", "clr", "identity"
LIKELIHOODS = (NB, BERNOULLI, GAUSSIAN)
UNITS = {
    LOG_CP10K: "log1p CP10k",
    BINARY: "probability of an open peak",
    CLR: "CLR",
    IDENTITY: "as measured",
}

PREPARED_SCHEMA = "xmodal-prepared/1"
LATENT_SCHEMA = "xmodal-latent/1"
EMBEDDING_SCHEMA, IMPUTED_SCHEMA = "xmodal-embedding/1", "xmodal-imputed/1"
ANNOTATION_SCHEMA = "xmodal-annotation/1"
TARGET_SCHEMA = "xmodal-target/1"
GENERATED_SCHEMA = "xmodal-generated/1"
DESCRIPTIONS_SCHEMA, DECODER_SCHEMA = "xmodal-descriptions/1", "xmodal-decoder/1"
CHECKPOINT_FORMAT = 1
CHECKPOINT_FILE = "model.safetensors"
PRETRAINED_SCHEMA, PRETRAINED_FILE = "xmodal-pretrained/1", "pretrained.safetensors"
STATE_FILE = "state.safetensors"
HISTORY_FILE = "history.tsv"
METRICS_FILE = "metrics.json"
