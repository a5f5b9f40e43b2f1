"""Write the golden checkpoint of every model that has none yet: `python tests/make_golden.py`.

Never rewrite one that is there: it stands for the files that users have.  A new checkpoint format adds new files.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np

from conftest import call_xmodal
from test_every_model import GOLDEN, MODELS, golden, quick
from xmodal import fields

WIDE = ("contrastive", "husformer")  # above 1 MB with the width that they have otherwise


def main() -> None:
    GOLDEN.mkdir(exist_ok=True)
    cells = GOLDEN / "cells.h5mu"
    if not cells.exists():
        raw = Path(sys.argv[1])  # a scratch folder
        call_xmodal("simulate", "--output-dir", raw, "--cells", 240, "--genes", 24, "--peaks", 30, "--no-rates")
        shutil.copy(raw / "genes.tsv", GOLDEN / "genes.tsv")
        call_xmodal("prepare", "--h5mu", raw / "paired.h5mu", "--output", cells)
    expected = GOLDEN / "expected.npz"
    known = dict(np.load(expected)) if expected.exists() else {}
    for name in MODELS:
        stem = f"{name}-format{fields.CHECKPOINT_FORMAT}"
        path = GOLDEN / f"{stem}.safetensors"
        if path.exists():
            continue
        scratch = GOLDEN / "scratch"
        call_xmodal(
            "train",
            cells,
            "--model",
            name,
            "--output-dir",
            scratch,
            "--threads",
            1,
            "--overwrite",
            *quick(name, GOLDEN / "genes.tsv"),
            *(["--set=hidden=64"] if name in WIDE else []),
        )
        (scratch / "model.safetensors").rename(path)
        known[stem] = golden(path, scratch / "p.h5ad")
        for left in scratch.iterdir():
            left.unlink()
        scratch.rmdir()
    np.savez_compressed(expected, **known)


if __name__ == "__main__":
    main()
