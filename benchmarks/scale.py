"""Do memory and time stay within bounds on files larger than memory?  Cells simulated block by block (scale_cells.py).

    python benchmarks/scale.py [--part wide|grow|million|shards|order|all] [--times SHARE] [--peaks N] [--folder DIR] [--write]

``wide``: 200,000 cells x 100,000 peaks, their latents.  ``grow``: 25,000 to 400,000 cells of --peaks and a tenth as many
genes: CPU seconds of prepare, of an epoch of crossmp and of predicting latents; exponents are of those in a process that has
done the same with 960 cells before, since starting takes seconds and varies by half a second; 200,000 are trained on by the
command itself.  ``million``: 1,000,000 such cells prepared, predicted, embedded (into a copy of them) and named.
``shards``: one run and 16, merged, have equal bytes.  ``order``: what shuffling in blocks does to a training.
``--times 0.1``: a tenth of the cells.  Counts stay on disk (--on-disk always) everywhere; memory is the most that the process
had at once (ru_maxrss), time is CPU time.  Files go to DIR (15 GB for ``wide``) and are removed.  What was measured is kept in
results/scale.json.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import HERE, XMODAL, between

RESULTS = HERE / "results" / "scale.json"
SHARE = 0.02  # of the peaks that are open
SIZES = (25_000, 100_000, 200_000, 400_000)
LARGE = 200_000  # cells that the command itself is trained on
START = 960  # cells of the run that is nearly all start
GRAPH = 20_000  # of the million cells, in the graph from which clusters and UMAP are made
EPOCHS = 5  # of the trainings whose orders are compared
Row = dict[str, Any]
Words = tuple[object, ...]  # of a command


def measured(*command: object) -> Row:
    """CPU seconds, wall seconds and the most memory (MiB) of a command; RuntimeError where it fails."""
    began = time.monotonic()
    pid = os.posix_spawn(str(command[0]), [str(c) for c in command], os.environ)
    _, status, used = os.wait4(pid, 0)
    if code := os.waitstatus_to_exitcode(status):
        raise RuntimeError(f"exit {code}: {' '.join(map(str, command))}")
    found = {
        "cpu_s": round(used.ru_utime + used.ru_stime, 2),
        "wall_s": round(time.monotonic() - began, 1),
        "peak_mib": round(used.ru_maxrss / 1024),
    }
    print(*command[1:3], found, flush=True)
    return found


ALONE = ("--threads", 1, "--quiet", "--overwrite")
DISK = ("--on-disk", "always")


def xmodal(*arguments: object, disk: bool = True) -> Row:
    return measured(XMODAL, *arguments, *(DISK if disk else ()), *ALONE)


def least(times: int, work: Callable[[], Row]) -> Row:
    """The run with the fewest CPU seconds: what others do on the machine only adds."""
    return min((work() for _ in range(times)), key=lambda row: float(row["cpu_s"]))


def beyond_start(few: Words, many: Words, times: int, folder: Path) -> Row:
    """A command on many cells: its seconds and memory, and ``net_s``, its seconds in a process that did ``few`` before."""
    row, result = xmodal(*many), folder / "spent.json"
    words = [json.dumps([*map(str, given), *map(str, (*DISK, *ALONE))]) for given in (few, many)]
    child("spent", *words, times, result)
    return {**row, **json.loads(result.read_text())}


def child(name: str, *arguments: object) -> None:
    """A function of this file in a process of its own: what this one holds would count as memory of all that it starts."""
    subprocess.run([sys.executable, __file__, "--child", name, *map(str, arguments)], check=True)


def make(folder: str, cells: str, peaks: str, share: str, copies: str = "1", by_type: str = "") -> None:
    import scale_cells

    scale_cells.write(Path(folder), int(cells), int(peaks), float(share), int(copies), bool(by_type))


def spent(few: str, many: str, times: str, result: str) -> None:
    """Least CPU seconds of the command ``many``, once ``few`` has imported and compiled everything."""
    from click.testing import CliRunner

    from xmodal.cli import cli

    seconds = []
    for words in (few, *[many] * int(times)):
        began = time.process_time()
        done = CliRunner().invoke(cli, json.loads(words))
        seconds.append(time.process_time() - began)
        if done.exit_code:
            raise RuntimeError(f"exit {done.exit_code}: {words}\n{done.output}")
    Path(result).write_text(json.dumps({"net_s": round(min(seconds[1:]), 2)}))
    print("beyond the start", *seconds, flush=True)


def epoch(prepared: str, result: str) -> None:
    """CPU seconds of an epoch of crossmp, its statistics and the rest of the command left out."""
    import torch

    from xmodal import registry
    from xmodal.learning import training
    from xmodal.learning.training_job import TrainRequest, job_of

    torch.set_num_threads(1)
    model_class = registry.get("crossmp")
    settings = model_class.Settings(epochs=1)
    job = job_of(Path(prepared), TrainRequest("crossmp", Path(result), on_disk="always"), model_class, settings)
    model = model_class.build(settings, job.vocabulary)
    running = training.start(model, 0)
    few = job.train.subset(range(0, 600))
    model.prepare(few)
    training.one_pass(running, settings, few, torch.device("cpu"))  # what is compiled, and memory taken, once
    began = time.process_time()
    (cells,) = training.kept(job.train)  # what is read once for all epochs is counted to the first
    training.one_pass(running, settings, cells, torch.device("cpu"))
    Path(result).write_text(json.dumps({"cpu_s": round(time.process_time() - began, 2), "cells": len(job.train)}))


def train(prepared: str, folder: str, epochs: str, *sizes: str) -> None:
    """`xmodal train` of crossmp with other sizes of what is shuffled."""
    import torch

    from xmodal.data import shuffling
    from xmodal.learning.run_training import run
    from xmodal.learning.training_job import TrainRequest

    torch.set_num_threads(1)
    shuffling.LARGE, shuffling.WINDOW, shuffling.BLOCK = map(int, sizes)
    run(
        Path(prepared),
        TrainRequest("crossmp", Path(folder), (f"epochs={epochs}",), overwrite=True),
        torch.device("cpu"),
    )


CHILDREN = {"make": make, "spent": spent, "epoch": epoch, "train": train}


# ---- parts


def to_prepare(folder: Path) -> Words:
    given = ("--rna", folder / "rna.h5ad", "--atac", folder / "atac.h5ad")
    return ("prepare", *given, "--output", folder / "prepared.h5mu")


def prepare(folder: Path) -> Row:
    return xmodal(*to_prepare(folder))


def to_latents(cells: Path, model: Path, source: str, output: Path) -> Words:
    target = {"rna": "atac", "atac": "rna"}[source]
    given = ("--from", source, "--to", target, "--checkpoint", model / "model.safetensors", "--output", output)
    return ("predict", cells, *given, "--output-kind", "latent", "--device", "cpu")


def latents(cells: Path, model: Path, source: str, output: Path, *more: object) -> Row:
    return xmodal(*to_latents(cells, model, source, output), *more)


def trained(prepared: Path, model: Path, epochs: int) -> Row:
    given = ("--model", "crossmp", "--set", f"epochs={epochs}", "--output-dir", model, "--device", "cpu")
    return xmodal("train", prepared, *given)


def wide(folder: Path, times: float, _: int) -> Row:
    """Latents of 200,000 cells x 100,000 peaks; the model was trained on 1,200 of such cells."""
    few, many = folder / "few", folder / "many"
    child("make", few, 1_200, 25_000, 0.03, 4)
    prepare(few)
    trained(few / "prepared.h5mu", folder / "model", 1)
    child("make", many, int(200_000 * times), 25_000, 0.03, 4)
    (many / "rna.h5ad").unlink()
    size = (many / "atac.h5ad").stat().st_size
    found = latents(many / "atac.h5ad", folder / "model", "atac", folder / "latent.h5ad")
    return {**found, "cells": int(200_000 * times), "peaks": 100_000, "input_gb": round(size / 1e9, 2)}


def one_epoch(folder: Path) -> Row:
    child("epoch", folder / "prepared.h5mu", folder / "epoch.json")
    return dict(json.loads((folder / "epoch.json").read_text()))


def grown(few: Path, here: Path, model: Path, again: int) -> Row:
    """Everything that is measured with the cells of ``here``, and which ``few`` has been through before."""
    row = {"prepare": beyond_start(to_prepare(few), to_prepare(here), again, here)}
    for name in ("rna", "atac") if here != few else ():
        (here / f"{name}.h5ad").unlink()
    row["epoch"] = least(again, lambda: one_epoch(here))
    if not model.exists():
        trained(here / "prepared.h5mu", model, 2)
    words = (to_latents(f / "prepared.h5mu", model, "atac", f / "latent.h5ad") for f in (few, here))
    row["predict"] = beyond_start(*words, again, here)
    return row


def grow(folder: Path, times: float, peaks: int) -> Row:
    found: Row = {"peaks": peaks, "genes": peaks // 10, "sizes": {}}
    few = folder / str(START)
    for cells in (START, *(int(n * times) for n in SIZES)):
        here = folder / str(cells)
        child("make", here, cells, peaks, SHARE)
        again = 3 if cells <= max(START, int(SIZES[1] * times)) else 1
        found["sizes"][str(cells)] = grown(few, here, folder / "model", again)
        if cells == int(LARGE * times):
            found["train"] = {**trained(here / "prepared.h5mu", folder / "model_large", 1), "cells": cells}
        if here != few:
            shutil.rmtree(here)
    sizes = [n for n in found["sizes"] if int(n) != START]
    for work, seconds in (("prepare", "net_s"), ("predict", "net_s"), ("epoch", "cpu_s")):
        spent = [found["sizes"][n][work][seconds] for n in sizes]
        found[f"{work}_exponent"] = round(exponent([int(n) for n in sizes], spent), 3)
    return found


def exponent(sizes: list[int], seconds: list[float]) -> float:
    """Slope of the line through the logarithms, by least squares."""
    x, y = [math.log(n) for n in sizes], [math.log(max(s, 1e-3)) for s in seconds]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / sum((a - mean_x) ** 2 for a in x)


def million(folder: Path, times: float, peaks: int) -> Row:
    cells = int(1_000_000 * times)
    child("make", folder, cells, peaks, SHARE)
    size = sum((folder / f"{m}.h5ad").stat().st_size for m in ("rna", "atac"))
    found: Row = {
        "cells": cells,
        "peaks": peaks,
        "genes": peaks // 10,
        "input_gb": round(size / 1e9, 2),
        "prepare": prepare(folder),
    }
    for name in ("rna", "atac"):
        (folder / f"{name}.h5ad").unlink()
    few = folder / "few"
    child("make", few, 4_000, peaks, SHARE)
    prepare(few)
    trained(few / "prepared.h5mu", folder / "model", 3)
    prepared, model = folder / "prepared.h5mu", folder / "model"
    found["predict"] = latents(prepared, model, "atac", folder / "latent.h5ad")
    given = (
        "--checkpoint",
        model / "model.safetensors",
        "--output",
        folder / "embedded.h5mu",
        "--table",
        folder / "e.tsv",
    )
    found["embed"] = xmodal("embed", prepared, *given, "--graph-cells", GRAPH, "--resolution", 1, "--device", "cpu")
    (folder / "embedded.h5mu").unlink()
    namer = folder / "namer"
    learned = ("--model", "scmmgpt", "--label-key", "type", "--set", "generator_passes=0", "--output-dir", namer)
    xmodal("train", few / "prepared.h5mu", *learned, "--device", "cpu", disk=False)
    given = ("--checkpoint", namer / "model.safetensors", "--output", folder / "named.h5ad")
    found["annotate"] = xmodal("annotate", prepared, *given, "--report-dir", folder / "seen", "--device", "cpu")
    return found


def shards(folder: Path, times: float, _: int) -> Row:
    """One run against sixteen."""
    cells = int(20_000 * times)
    child("make", folder, cells, 4_000, 0.05)
    prepare(folder)
    prepared, model = folder / "prepared.h5mu", folder / "model"
    trained(prepared, model, 1)
    latents(prepared, model, "rna", folder / "whole.h5ad")
    parts = [folder / f"part{i}.h5ad" for i in range(1, 17)]
    for i, part in enumerate(parts, 1):
        latents(prepared, model, "rna", part, "--shard", f"{i}/16")
    xmodal("merge", *parts, "--output", folder / "merged.h5ad", disk=False)
    equal = (folder / "whole.h5ad").read_bytes() == (folder / "merged.h5ad").read_bytes()
    return {"cells": cells, "shards": 16, "equal": equal}


def order(folder: Path, times: float, _: int) -> Row:
    """All cells shuffled with each other, or blocks within windows; cells as they come, and by type.

    16 windows of 65 blocks each; 70,000 cells of 2,000 counts, the fewest that are shuffled so, have 8 of 128.
    """
    cells = int(20_000 * times)
    found: Row = {"cells": cells, "epochs": EPOCHS}
    for by_type in ("", "by type"):
        here = folder / (by_type or "mixed").replace(" ", "_")
        child("make", here, cells, 4_000, 0.05, 1, by_type)
        prepare(here)
        prepared = here / "prepared.h5mu"
        entries = cells * 300
        for name, sizes in (("all", (1 << 40, 1, 1)), ("blocks", (0, entries // 16, entries // 16 // 65))):
            model = here / name
            child("train", prepared, model, EPOCHS, *sizes)
            found[f"{name}, {by_type or 'mixed'}"] = judged(prepared, model)
    return found


def judged(prepared: Path, model: Path) -> Row:
    """The least validation loss, and scores of the test cells."""
    lines = [line.split("\t") for line in (model / "history.tsv").read_text().splitlines()]
    place = lines[0].index("valid_loss")
    found: Row = {"valid_loss": min(float(line[place]) for line in lines[1:])}
    files = {}
    for source, target in (("rna", "atac"), ("atac", "rna")):
        files[target] = model / f"{target}.h5ad"
        given = (
            "--from",
            source,
            "--to",
            target,
            "--checkpoint",
            model / "model.safetensors",
            "--output",
            files[target],
        )
        xmodal("predict", prepared, *given, "--split", "test", "--interval", 0, "--device", "cpu")
    pairs = [x for target, file in files.items() for x in ("--prediction", f"{target}={file}")]
    given = ("--no-controls", "--umap-cells", 0, "--label-key", "type", "--output-dir", model / "scores")
    xmodal("evaluate", prepared, *pairs, *given, disk=False)
    for target, about in json.loads((model / "scores" / "metrics.json").read_text())["targets"].items():
        names = ("gene_pearson", "cell_pearson_centred", "peak_auroc", "label_transfer_macro")
        scores = about["methods"]["prediction"]
        found |= {f"{target} {name}": round(scores[name], 4) for name in names if name in scores}
    return found


PARTS = {"wide": wide, "grow": grow, "million": million, "shards": shards, "order": order}


# ---- tables


def table(results: Row) -> str:
    lines: list[str] = []
    if "wide" in results:
        r = results["wide"]
        lines += [
            f"Latents of {r['cells']:,} cells x {r['peaks']:,} peaks ({r['input_gb']} GB, packed): {r['cpu_s']:.0f} CPU seconds, "
            f"**{r['peak_mib']:,} MiB**.",
            "",
        ]
    if "grow" in results:
        lines += _grown(results["grow"])
    if "million" in results:
        r = results["million"]
        lines += [
            f"{r['cells']:,} cells of {r['genes']:,} genes and {r['peaks']:,} peaks ({r['input_gb']} GB, packed; a graph of "
            f"{GRAPH:,}, the others put beside these):",
            "",
            "| | CPU s | most memory, MiB |",
            "|---|---|---|",
            *(
                f"| {work} | {r[work]['cpu_s']:.0f} | {r[work]['peak_mib']:,} |"
                for work in ("prepare", "predict", "embed", "annotate")
                if work in r
            ),
            "",
        ]
    if "shards" in results:
        r = results["shards"]
        words = "equal bytes" if r["equal"] else "**other bytes**"
        lines += [f"{r['cells']:,} cells in one run and in {r['shards']} shards, merged: {words}.", ""]
    if "order" in results:
        lines += _orders(results["order"])
    return "\n".join(lines).rstrip()


def _grown(r: Row) -> list[str]:
    lines = [f"Cells of {r['genes']:,} genes and {r['peaks']:,} peaks:", ""]
    lines += [
        "| cells | prepare, CPU s, beyond starting (MiB) | an epoch, CPU s | latents, CPU s, beyond starting (MiB) |"
    ]
    lines += ["|---|---|---|---|"]
    for cells, row in r["sizes"].items():
        p, e, z = row["prepare"], row["epoch"], row["predict"]
        whole = [f"{x['cpu_s']:.1f}, {x['net_s']:.1f} ({x['peak_mib']:,})" for x in (p, z)]
        lines.append(f"| {int(cells):,} | {whole[0]} | {e['cpu_s']:.1f} | {whole[1]} |")
    lines.append(
        f"| exponent | {r['prepare_exponent']:.2f} | {r['epoch_exponent']:.2f} | {r['predict_exponent']:.2f} |"
    )
    t = r["train"]
    words = f"`xmodal train --set epochs=1` on {t['cells']:,} cells: {t['cpu_s']:.0f} CPU seconds, **{t['peak_mib']:,} MiB**."
    return [*lines, "", words, ""]


def _orders(r: Row) -> list[str]:
    rows = {name: row for name, row in r.items() if isinstance(row, dict)}
    columns = list(next(iter(rows.values())))
    head = [
        f"{r['cells']:,} cells, {r['epochs']} epochs:",
        "",
        "| shuffled, cells in the file | " + " | ".join(columns) + " |",
    ]
    body = [
        f"| {name} | " + " | ".join(f"{row.get(c, math.nan):.4f}" for c in columns) + " |" for name, row in rows.items()
    ]
    return [*head, "|---|" + "---|" * len(columns), *body]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--part", choices=[*PARTS, "all"], default="all")
    parser.add_argument("--times", type=float, default=1.0)
    parser.add_argument("--peaks", type=int, default=20_000)
    parser.add_argument("--folder", type=Path, default=Path("scale"))
    parser.add_argument("--write", action="store_true", help="Write the tables into RESULTS.md.")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        CHILDREN[asked.child[0]](*asked.child[1:])
        return
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in PARTS if asked.part == "all" else [asked.part]:
        folder = asked.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        try:
            found = PARTS[name](folder, asked.times, asked.peaks)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        print(name, json.dumps(found, indent=1))
        if asked.times == 1:
            results[name] = found
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    if asked.write:
        between(HERE / "RESULTS.md", "scale", table(results))


if __name__ == "__main__":
    main()
