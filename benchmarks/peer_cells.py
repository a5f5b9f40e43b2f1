"""Cells of a prepared file as the two plain h5ad files that a peer reads, and a digest of them.

    python benchmarks/peer_cells.py PREPARED.h5mu SECOND FOLDER

Writes FOLDER/rna.h5ad, FOLDER/SECOND.h5ad and FOLDER/about.json.  A process of its own, so that the runner stays small and
the peak memory it measures is the method's.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from xmodal import fields


def digest_of(parts: dict[str, Any], split: list[str]) -> str:
    """Sixteen hex digits that change with cells, their order, their split, features and total counts."""
    found = hashlib.sha256(json.dumps(split).encode())
    for name in sorted(parts):
        adata = parts[name]
        found.update(json.dumps([name, list(adata.obs_names), list(adata.var_names)]).encode())
        found.update(json.dumps(adata.X.sum(1).ravel().tolist()).encode())
    return found.hexdigest()[:16]


def main(prepared: Path, second: str, folder: Path) -> None:
    from xmodal.data.io import read_cells

    mdata = read_cells(prepared)
    cells = mdata.mod[fields.RNA].obs_names.intersection(mdata.mod[second].obs_names)
    split = mdata.obs.loc[cells, fields.SPLIT].astype(str)
    parts = {name: mdata.mod[name][cells].copy() for name in (fields.RNA, second)}
    for name, adata in parts.items():
        adata.obs = adata.obs[[fields.DEPTH]].assign(**{fields.SPLIT: split.to_numpy()})
        adata.uns = {}
        adata.write_h5ad(folder / f"{name}.h5ad")
    about = {
        "digest": digest_of(parts, list(split)),
        "cells": {part: int((split == part).sum()) for part in (fields.TRAIN, fields.VALID, fields.TEST)},
        "features": {name: int(adata.n_vars) for name, adata in parts.items()},
    }
    (folder / "about.json").write_text(json.dumps(about))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
