"""Ways for modalities to meet, measured on simulated cells whose genes follow products of what peaks tell.

    python benchmarks/fusion.py [--part simulated|few|tried|pairs|cortex|all] [--models contrastive,mfm]
                                [--seeds 1,2,5] [--folds 0,1,2] [--set NAME=VALUE ...] [--labels] [--write]

`simulated`: 6,000 cells, `few`: 2,000; half of them are training cells.  `tried`: the settings of fusion_tried.py on 6,000
cells of the seed that settings were chosen on.  Beside the models: the oracle that knows the coupling, `linear`, and early
concatenation with modality dropout, which has the size and the training of the models (twice: of one hidden layer, and of
two, as contrastive has).  Nothing is asked of a model unless the oracle is at least 1.25 times as good as what multiplies
nothing (the run stops otherwise).
`pairs`: `interact` with and without its pretraining where few cells are pairs (fusion_pairs.py; of all models this one).
`cortex`: folds of the training batches of mouse cortex (fusion_cortex.py), beside `linear`.  Results are kept in
benchmarks/results/fusion.json with ``--write`` (a model measured anew replaces its own; with ``--set`` or ``--labels`` it has a
row of its own), which also rewrites the tables of benchmarks/RESULTS.md.  Settings were chosen on other seeds.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Callable

import fusion_cortex
import fusion_pairs
import numpy as np
import torch
from common import HERE, between
from fusion_early import Early
from fusion_measures import (
    Array,
    cells_of_simulation,
    chunked,
    dedicated_scores,
    foscttm,
    label_scores,
    oracle_labels,
    prediction_scores,
)
from fusion_tried import TRIED

from xmodal import registry
from xmodal.data.batches import Cells
from xmodal.data.vocabulary import Vocabulary
from xmodal.fields import ATAC, RNA, TEST, TRAIN, VALID
from xmodal.fusion.fused import Fused
from xmodal.learning import training
from xmodal.learning.training_job import parse_settings
from xmodal.models.base import CrossModalModel
from xmodal.simulation.simulate import Simulated, SimulateSettings, simulate
from xmodal.simulation.simulation_oracle import ENOUGH, run_oracle

log = logging.getLogger("benchmark")
RESULTS = HERE / "results" / "fusion.json"
WAYS = ((ATAC, RNA), (RNA, ATAC))
Scores = dict[str, float]
CELLS = {"simulated": 6000, "few": 2000, "tried": 6000, "pairs": 6000}  # of the parts that are simulated
# that pass the check; others stop the run
SEEDS = {"simulated": "1,2,5", "few": "1,5,7", "tried": "106", "pairs": "1,2,5"}
PLACE = {  # of the tables in RESULTS.md
    "simulated": "fusion",
    "few": "fusion_few",
    "tried": "fusion_tried",
    "pairs": "fusion_pairs",
    "cortex": "fusion_cortex",
}
DEEPER = "encoder_layers=2"  # as contrastive has
FIRST = ("oracle", "linear", "early", f"early ({DEEPER})", "dedicated", *fusion_pairs.ROWS)
SHOWN = {
    "atac_rna_all": "A>R",
    "atac_rna_coupled": "A>R coupled",
    "rna_atac_all": "R>A",
    "rna_atac_coupled": "R>A coupled",
    "type": "type",
    "joint": "joint",
    "type_missing": "type, missing",
    "state_missing": "state, missing",
    "type_15nn": "type, 15-NN",
    "foscttm": "FOSCTTM",
    "atac_rna_network": "network A>R",
    "rna_atac_network": "network R>A",
    "atac_rna_weight": "weight A>R",
    "rna_atac_weight": "weight R>A",
    "cpu_s": "CPU s",
}


def trained(
    model_class: type[CrossModalModel], parts: dict[str, Cells], seed: int, changes: list[str]
) -> CrossModalModel:
    """Fitted as `xmodal train` would; ``cpu_s`` of the model: how long it took."""
    torch.manual_seed(seed)
    model = model_class.build(parse_settings(model_class, tuple(changes)), parts[TRAIN].vocabulary)
    began = time.process_time()
    training.fit(model, parts[TRAIN], parts[VALID], torch.device("cpu"), seed=seed)
    model.cpu_s = time.process_time() - began  # type: ignore[assignment]
    return model.eval()


def predictions(simulated: Simulated, model: CrossModalModel, test: Cells) -> Scores:
    """Mean Pearson correlation both ways."""
    scores = {}
    for s, t in WAYS:
        found = chunked(test, lambda batch, s=s, t=t: model.predict(batch.only(s), s, t))
        for name, value in prediction_scores(simulated, t, found, test).items():
            scores[f"{s}_{t}_{name}"] = value
    return scores


def embedder(model: CrossModalModel) -> Callable[[Cells], Array]:
    return lambda cells: chunked(cells, model.embed)


def measured(simulated: Simulated, model: CrossModalModel, parts: dict[str, Cells], seed: int) -> Scores:
    """Everything that is measured of a model with a latent."""
    return {
        **predictions(simulated, model, parts[TEST]),
        **label_scores(simulated, embedder(model), parts, seed),
        "foscttm": foscttm(model, parts[TEST]),
        "cpu_s": float(model.cpu_s),  # type: ignore[arg-type]
    }


def alone(parts: dict[str, Cells], seed: int) -> dict[str, Callable[[Cells], Array]]:
    """Embeddings of models that know one modality only."""
    found = {}
    for m in (RNA, ATAC):
        vocabulary = Vocabulary({m: parts[TRAIN].vocabulary[m]})
        few = {k: one_modality(c, vocabulary, m) for k, c in parts.items()}
        model = trained(Early, few, seed, ["hide=0"])
        found[m] = lambda cells, v=vocabulary, m=m, x=model: chunked(one_modality(cells, v, m), x.embed)
    return found


def one_modality(cells: Cells, vocabulary: Vocabulary, m: str) -> Cells:
    return Cells(vocabulary, cells.names, {m: cells.counts[m]}, {m: cells.depth[m]}, {m: np.ones(len(cells), bool)})


def comparators(simulated: Simulated, parts: dict[str, Cells], seed: int) -> dict[str, Scores]:
    """Oracle, linear and early concatenation, twice; stops where the oracle is not far enough above linear."""
    oracle = run_oracle(simulated)
    ratio = oracle.scores[f"{ATAC}->{RNA}"]["oracle_over_linear"]
    if ratio < ENOUGH:
        raise SystemExit(
            f"seed {seed}: the oracle is {ratio} times linear; nothing can be asked of a model below {ENOUGH}"
        )
    found: dict[str, Scores] = {"oracle": {**oracle_labels(simulated), "oracle_over_linear": float(ratio)}}
    order = [oracle.cells.index(n) for n in parts[TEST].names]
    for s, t in WAYS:
        for name, value in prediction_scores(simulated, t, oracle.predictions[s, t][order], parts[TEST]).items():
            found["oracle"][f"{s}_{t}_{name}"] = value
    linear = trained(registry.get("linear"), parts, seed, [])
    found["linear"] = {**predictions(simulated, linear, parts[TEST]), "cpu_s": float(linear.cpu_s)}  # type: ignore[arg-type]
    early = trained(Early, parts, seed, [])
    found["early"] = measured(simulated, early, parts, seed)
    found[f"early ({DEEPER})"] = measured(simulated, trained(Early, parts, seed, [DEEPER]), parts, seed)
    found["dedicated"] = dedicated_scores(simulated, embedder(early), alone(parts, seed), parts, seed)
    for name, scores in found.items():
        told(f"seed {seed}", name, scores)
    return found


def told(where: str, name: str, scores: Scores) -> Scores:
    log.info("%s %s: %s", where, name, {k: round(v, 4) for k, v in scores.items()})
    return scores


def rows(part: str, names: list[str], asked: argparse.Namespace) -> dict[str, tuple[str, list[str]]]:
    """Model and changed settings of each line of the table."""
    found = {}
    for name in names:
        several = [asked.set] if asked.set or part != "tried" else [[], *TRIED.get(name, [])]
        for changes in several:
            said = [*changes, *(["labels"] if asked.labels else [])]
            found[f"{name} ({', '.join(said)})" if said else name] = (name, changes)
    return found


def run_seed(part: str, seed: int, names: list[str], asked: argparse.Namespace) -> dict[str, Scores]:
    """Comparators and models on the cells of one seed."""
    simulated = simulate(SimulateSettings(cells=CELLS[part]), seed)
    parts = cells_of_simulation(simulated, asked.labels)
    found = comparators(simulated, parts, seed) if not asked.no_comparators else {}
    for row, (name, changes) in rows(part, names, asked).items():
        model = trained(registry.get(name), parts, seed, changes)
        found[row] = told(f"seed {seed}", row, measured(simulated, model, parts, seed))
    return found


def run_pairs(seed: int) -> dict[str, Scores]:
    """`linear` and `interact` with and without pretraining, on cells of which few are pairs."""
    simulated = simulate(SimulateSettings(cells=CELLS["pairs"]), seed)
    parts, found = cells_of_simulation(simulated), {}
    for case, what in fusion_pairs.CASES.items():
        some = fusion_pairs.parts_of(what, parts, seed)
        for label, (name, changes) in fusion_pairs.MODELS.items():
            model = trained(registry.get(name), some, seed, changes)
            scores = {**predictions(simulated, model, parts[TEST]), "cpu_s": float(model.cpu_s)}  # type: ignore[arg-type]
            if isinstance(model, Fused):  # probes learn from whole cells, whatever the model was trained on
                scores |= measured(simulated, model, parts, seed)
                scores |= fusion_pairs.of_network(simulated, model, parts[TEST])
            kept_scores = {k: v for k, v in scores.items() if k in fusion_pairs.KEPT}
            found[f"{case}: {label}"] = told(f"seed {seed}", f"{case}: {label}", kept_scores)
    return found


def run_fold(fold: str, names: list[str], asked: argparse.Namespace) -> dict[str, Scores]:
    """`linear` and the models on one fold of mouse cortex."""
    parts, types = fusion_cortex.cells_of_fold(fold, asked.labels)
    found: dict[str, Scores] = {}
    control: dict[str, tuple[str, list[str]]] = {} if asked.no_comparators else {"linear": ("linear", [])}
    for row, (name, changes) in (control | rows("cortex", names, asked)).items():
        model = trained(registry.get(name), parts, 0, changes)
        found[row] = told(f"fold {fold}", row, fusion_cortex.measured(model, parts, types))
    return found


def kept(part: str, found: dict[str, dict[str, Scores]]) -> dict[str, dict[str, Scores]]:
    """What was measured so far of a part, with ``found`` (seed or fold, method) in it."""
    everything: dict[str, dict[str, dict[str, Scores]]] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    known = everything.setdefault(part, {})
    for seed, methods in found.items():
        known[seed] = {**known.get(seed, {}), **methods}
    RESULTS.write_text(json.dumps(everything, indent=1, sort_keys=True) + "\n")
    return known


def table(part: str, known: dict[str, dict[str, Scores]]) -> str:
    """Means over the seeds or folds, one line for each method."""
    names = list(dict.fromkeys(name for methods in known.values() for name in methods))
    order = [n for n in (*FIRST, *sorted(set(names) - set(FIRST))) if n in names]
    there = {k for methods in known.values() for scores in methods.values() for k in scores}
    shown = {key: title for key, title in SHOWN.items() if key in there}
    what = "folds" if part == "cortex" else "seeds"
    lines = [f"| {what} {', '.join(known)} | " + " | ".join(shown.values()) + " |", "|---|" + "---|" * len(shown)]
    for name in order:
        each = [methods[name] for methods in known.values() if name in methods]
        cells = []
        for key in shown:
            values = [scores[key] for scores in each if key in scores]
            cells.append(f"{np.mean(values):.3f}" if values else "-")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def run(part: str, names: list[str], asked: argparse.Namespace) -> None:
    """Every seed or fold of a part, each kept when it is done."""
    for one in (asked.folds if part == "cortex" else asked.seeds or SEEDS[part]).split(","):
        if part == "pairs":
            found = run_pairs(int(one))
        else:
            found = run_fold(one, names, asked) if part == "cortex" else run_seed(part, int(one), names, asked)
        if asked.write:
            between(HERE / "RESULTS.md", PLACE[part], table(part, kept(part, {one: found})))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--part", default="simulated", choices=[*PLACE, "all"])
    parser.add_argument("--models", default="")
    parser.add_argument("--seeds", default="", help="Those of the part, if not given.")
    parser.add_argument("--folds", default="0,1,2", help="Of mouse cortex, see trials.py.")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--labels", action="store_true", help="Models that learn labels know those of training cells.")
    parser.add_argument("--no-comparators", action="store_true")
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("xmodal").setLevel(logging.WARNING)
    torch.set_num_threads(1)
    names = [n for n in asked.models.split(",") if n]
    for part in PLACE if asked.part == "all" else [asked.part]:
        run(part, names, asked)


if __name__ == "__main__":
    main()
