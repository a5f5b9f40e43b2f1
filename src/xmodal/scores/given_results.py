"""What `xmodal evaluate` asks of every result that it scores: which checkpoint made it, and which cells of the truth it is of."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from xmodal import fields
from xmodal.errors import InputRefused

if TYPE_CHECKING:
    from mudata import MuData


def require_checkpoint(checkpoint: Path, said: dict[str, str | None], do: str) -> None:
    """Refuse what says that another checkpoint made it.  ``said``: by file, the sha256; ``do``: the verb of its command."""
    from xmodal.provenance import sha256

    digest = sha256(checkpoint)
    for where, other in said.items():
        if other not in (None, "", digest):
            raise InputRefused(
                f"it was made by another checkpoint ({other[:12]}...)",
                where=where,
                do=f"{do} again with {checkpoint.name} ({digest[:12]}...), or leave --checkpoint out",
            )


def rows(mdata: MuData, cells: npt.NDArray[Any], where: str) -> npt.NDArray[np.int64]:
    """Where each cell of the truth stands among ``cells``, -1 where it does not; refused where others are among these."""
    import pandas as pd

    index = pd.Index(cells)
    strange = index[~index.isin(mdata.obs_names)]
    if len(strange):
        raise InputRefused(
            f"{len(strange)} of {len(index)} cells are not in the truth, first {', '.join(strange[:3])}",
            where=where,
            do="give the truth of the same cells, with the same cell names",
        )
    return index.get_indexer(mdata.obs_names).astype(np.int64)


def which(part: npt.NDArray[Any], said: Any, asked: str) -> str:
    """Which cells are scored: those asked for; else those of the split that the command was ``said`` to take, the test
    cells, or all.  ``part``: the split of each cell of the truth, (cells,)."""
    if asked != "asked":
        if asked != "all" and not (part != "").any():
            raise InputRefused(
                f"obs has no column '{fields.SPLIT}'", where="truth", do="run xmodal prepare, or give --cells all"
            )
        return asked
    if said in (fields.TEST, fields.VALID):
        return str(said)
    return fields.TEST if (part == fields.TEST).any() else "all"
