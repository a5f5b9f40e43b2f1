"""How fast are 100,000 cells predicted, top 100 values each?  `python benchmarks/speed_predict.py [MODEL ...]`.

The cells are those of the mouse cortex, repeated under new names and written as a prepared .h5mu; each model is trained on the
cortex as it comes (crossmp and auto for two epochs: the weights do not change the speed).  Start of Python, reading, the score of
unlikeness of every cell, prediction, choice of the highest values and writing are all in the seconds.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import anndata as ad
import mudata as mu
import numpy as np
import scipy.sparse as sp
from common import REAL, XMODAL, between, xmodal

CELLS, TOP, THREADS = 100_000, 100, 2
MODELS = ("linear", "crossmp", "auto")
SETTINGS = {"crossmp": ("--set", "epochs=2"), "auto": ("--set", "epochs=2", "--set", "refit_epochs=0")}


def repeated(path: Path, cells: int) -> mu.MuData:
    """The cells of ``path`` again and again, under new names."""
    mu.set_options(pull_on_update=False)
    source = mu.read_h5mu(path)
    rows, names = np.arange(cells) % source.n_obs, [f"cell{i:06d}" for i in range(cells)]
    mods = {}
    for name, part in source.mod.items():
        obs = part.obs.iloc[rows].set_axis(names)
        mods[name] = ad.AnnData(sp.csr_matrix(part.X)[rows], obs=obs, var=part.var.copy(), uns=dict(part.uns))
    out = mu.MuData(mods)
    out.obs = source.obs.iloc[rows].set_axis(names)
    out.uns = dict(source.uns)
    return out


def timed(*args: object) -> tuple[float, float]:
    """Seconds and peak MiB of one command in a process of its own."""
    started = time.perf_counter()
    process = subprocess.Popen([XMODAL, *map(str, args)], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f"failed: {' '.join(map(str, args))}")
    return time.perf_counter() - started, usage.ru_maxrss / 1024


def main() -> None:
    """Measure the models named, and put the table between the markers of RESULTS.md."""
    models = tuple(sys.argv[1:]) or MODELS
    lines = [
        "| model | direction | cells | features | seconds | peak MiB | written MB |",
        "|---|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        cortex = folder / "cortex.h5mu"
        found = ("--h5mu", REAL / "mouse_cortex_snareseq_dev" / "paired.h5mu", "--exclude", "cell_type=Mis")
        xmodal("prepare", *found, "--split-by", "batch", "--output", cortex)
        cells = repeated(cortex, CELLS)
        cells.write_h5mu(folder / "cells.h5mu", compression="gzip", compression_opts=1)
        for model in models:
            how = ("--model", model, "--threads", THREADS, *SETTINGS.get(model, ()))
            xmodal("train", cortex, *how, "--output-dir", folder / model)
            for source, target in (("rna", "atac"), ("atac", "rna")):
                output = folder / f"{model}_{target}.h5ad"
                seconds, peak = timed(
                    *(
                        "predict",
                        folder / "cells.h5mu",
                        "--to",
                        target,
                        "--checkpoint",
                        folder / model / "model.safetensors",
                    ),
                    *("--top", TOP, "--output", output, "--threads", THREADS, "--quiet"),
                )
                sizes = f"{CELLS:,} | {cells.mod[target].n_vars:,}"
                written = output.stat().st_size / 1e6
                lines.append(
                    f"| {model} | {source} -> {target} | {sizes} | {seconds:.1f} | {peak:.0f} | {written:.0f} |"
                )
                sys.stderr.write(lines[-1] + "\n")
    between(Path(__file__).with_name("RESULTS.md"), "predict_speed", "\n".join(lines))


if __name__ == "__main__":
    main()
