"""The one table of commands: what each does, and where it is wrapped.

``tests/test_wrappers_agree.py`` and ``tests/test_galaxy_in_step.py`` read it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """``module``/``galaxy``: wrapped there?  ``why_not``: the reason where it is not."""

    name: str
    summary: str
    module: bool
    galaxy: bool
    why_not: str = ""


COMMANDS = (
    Command("simulate", "Simulate paired cells with known truth.", False, False, "for tests and teaching only"),
    Command("check", "Say what is in a file and whether it fits the job.", True, True),
    Command("prepare", "Bring one or many samples into one checked .h5mu with a split.", True, True),
    Command(
        "pretrain",
        "Pretrain encoders on cells without labels or without a second modality.",
        False,
        False,
        "made once of many files, for many trainings; train --init takes it",
    ),
    Command("train", "Train a model on a prepared .h5mu.", True, True),
    Command("predict", "Predict the modality that was not measured.", True, True),
    Command("decode", "Predict from the latent that predict wrote.", True, True),
    Command("merge", "Join predictions of row ranges into one file.", True, False, "Galaxy never shards"),
    Command("markers", "Find the features that mark each group of cells.", True, True),
    Command("embed", "Embed cells with any of the modalities together, and cluster them.", True, True),
    Command("annotate", "Name the type of each cell, with its Cell Ontology id.", True, True),
    Command("describe", "Describe groups of cells, or cells, in words with their evidence.", True, True),
    Command("generate", "Write cells that fit a text.", True, True),
    Command("impute", "Write denoised values of what was measured.", True, True),
    Command("evaluate", "Score predictions against the truth and against controls.", True, True),
    Command(
        "select", "Choose the best trial of a sweep by its validation cells.", True, False, "Galaxy trains one model"
    ),
    Command("report", "Write the HTML report and the MultiQC section.", True, True),
    Command(
        "samplesheet",
        "Write the pipeline's samplesheet for a folder of results.",
        False,
        False,
        "makes the input of a pipeline, and Galaxy has collections",
    ),
    Command("models", "List the models, or say what is in a checkpoint.", False, True, "nothing to run in a pipeline"),
)
