"""What pretraining of single modalities is worth where few cells are paired: simulated cells, a tenth of them pairs.

    python benchmarks/fusion_init.py [--models contrastive,mfm] [--seeds 1,2,5] [--cells 6000] [--set NAME=VALUE ...]
                                     [--pretrain NAME=VALUE ...] [--write]

Of the training and validation cells a tenth keep both modalities; the others keep RNA or ATAC, in turn.  Four ways to train
on them: `pairs` (from nothing, on the pairs alone), `init` (pretrained on all cells, each modality alone; then the pairs),
`all` (from nothing, on all cells at once, since the models take cells that lack a modality) and `init, all`.  Epochs are those
of the model in every training.  Results are kept in
benchmarks/results/fusion_init.json with ``--write``.  Settings were chosen on seeds 106 and 109.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
from pathlib import Path

import torch
from common import HERE, between, mean_table
from fusion import Scores, measured, predictions
from fusion_measures import cells_of_simulation
from fusion_pairs import few_pairs

from xmodal import registry
from xmodal.data.batches import Cells
from xmodal.fields import ATAC, RNA, TEST, TRAIN, VALID
from xmodal.fusion.fused import Fused
from xmodal.learning import training
from xmodal.learning.training_job import parse_settings
from xmodal.models.base import CrossModalModel
from xmodal.pretraining import initial_single, pretrained, run_single
from xmodal.pretraining.single import Alone
from xmodal.simulation.simulate import SimulateSettings, simulate

log = logging.getLogger("benchmark")
RESULTS = HERE / "results" / "fusion_init.json"
PAIRED = 0.1
CPU = torch.device("cpu")
SHOWN = {
    "atac_rna_all": "A>R",
    "rna_atac_all": "R>A",
    "type": "type",
    "state": "state",
    "type_missing": "type, missing",
    "state_missing": "state, missing",
    "foscttm": "FOSCTTM",
    "cpu_s": "CPU s",
}


def built(name: str, parts: dict[str, Cells], seed: int, changes: list[str]) -> Fused:
    torch.manual_seed(seed)
    model_class = registry.get(name)
    model = model_class.build(parse_settings(model_class, tuple(changes)), parts[TRAIN].vocabulary)
    assert isinstance(model, Fused)
    return model


def pretraining(name: str, parts: dict[str, Cells], seed: int, changes: list[str], path: Path) -> float:
    """Leaves what `xmodal pretrain --model` would; returns the CPU seconds."""
    fused = built(name, parts, seed, changes)
    before = {k: v.clone() for k, v in fused.state_dict().items()}
    began = time.process_time()
    training.fit(Alone(fused), parts[TRAIN], parts[VALID], CPU, seed=seed)
    header = {"model": name, "settings": fused.settings.model_dump(), "vocabulary": fused.vocabulary.to_json()}
    pretrained.save(path, header, run_single.kept(fused, before))
    return time.process_time() - began


def trained(model: CrossModalModel, parts: dict[str, Cells], seed: int) -> CrossModalModel:
    began = time.process_time()
    training.fit(model, parts[TRAIN], parts[VALID], CPU, seed=seed)
    model.cpu_s = time.process_time() - began  # type: ignore[assignment]
    return model.eval()


def run_seed(seed: int, asked: argparse.Namespace) -> dict[str, Scores]:
    simulated = simulate(SimulateSettings(cells=asked.cells), seed)
    parts = cells_of_simulation(simulated)
    everyone = {p: few_pairs(c, seed, PAIRED) if p != TEST else c for p, c in parts.items()}
    pairs = {p: c.having(RNA, ATAC) for p, c in everyone.items()}
    linear_class = registry.get("linear")
    linear = trained(linear_class.build(parse_settings(linear_class, ()), pairs[TRAIN].vocabulary), pairs, seed)
    found: dict[str, Scores] = {"linear, pairs": predictions(simulated, linear, parts[TEST])}
    for name in asked.models.split(","):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "pretrained.safetensors"
            spent = pretraining(name, everyone, seed, asked.pretrain, path)
            for way in asked.ways.split(";"):
                model = built(name, parts, seed, asked.set)
                if way.startswith("init"):
                    initial_single.load_into(model, path)
                trained(model, everyone if way.endswith("all") else pairs, seed)
                known = {
                    **parts,
                    TRAIN: parts[TRAIN],
                }  # probes learn from whole cells, whatever the model was trained on
                scores = measured(simulated, model, known, seed)
                scores["cpu_s"] += spent if way.startswith("init") else 0.0
                found[f"{name}, {way}"] = scores
                log.info("seed %d %s, %s: %s", seed, name, way, {k: round(scores[k], 3) for k in SHOWN})
    return found


def table(known: dict[str, dict[str, Scores]]) -> str:
    """Means over the seeds, one line for each way."""
    return mean_table(known, SHOWN, "seeds")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", default="contrastive,mfm")
    parser.add_argument("--seeds", default="1,2,5")
    parser.add_argument("--cells", type=int, default=6000)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--pretrain", action="append", default=[])
    parser.add_argument("--ways", default="pairs;init;all;init, all")
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("xmodal").setLevel(logging.WARNING)
    torch.set_num_threads(1)
    known: dict[str, dict[str, Scores]] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for seed in asked.seeds.split(","):
        known[seed] = {**known.get(seed, {}), **run_seed(int(seed), asked)}
        if asked.write:
            RESULTS.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
            between(HERE / "RESULTS.md", "fusion_init", table(known))


if __name__ == "__main__":
    main()
