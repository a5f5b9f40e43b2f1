"""Run by torchrun, or alone: trains a model and writes what each process has of it.  PREPARED MODEL OUT NAME=VALUE ..."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import torch

from xmodal import ranks, registry, starting
from xmodal.data import io
from xmodal.data.batches import cells_of
from xmodal.data.vocabulary import Vocabulary
from xmodal.learning import training
from xmodal.learning.training_job import parse_settings


def require_equal(tensors: object) -> None:
    """In place of ``ranks.agree``: everybody has what the first process has, bit for bit, before it is told."""
    for x in tensors:  # type: ignore[attr-defined]
        theirs = x.detach().contiguous().clone()
        torch.distributed.broadcast(theirs, 0)
        assert torch.equal(theirs, x.detach()), f"process {starting.here()} has drifted away"


def digest(model: torch.nn.Module) -> str:
    found = hashlib.sha256()
    for x in model.state_dict().values():
        found.update(x.detach().contiguous().numpy().tobytes())
    return found.hexdigest()


def main(prepared: str, name: str, out: str, *changes: str) -> None:
    torch.set_num_threads(1)
    ranks.begin(torch.device("cpu"))
    if starting.asked():
        ranks.agree = require_equal
    mdata = io.read_cells(Path(prepared))
    cells = cells_of(mdata, Vocabulary.from_prepared(mdata))
    torch.manual_seed(0)
    kind = registry.get(name)
    model = kind.build(parse_settings(kind, changes), cells.vocabulary)
    order = torch.randperm(len(cells), generator=torch.Generator().manual_seed(0)).numpy()
    train, valid = cells.subset(order[: len(order) * 3 // 4]), cells.subset(order[len(order) * 3 // 4 :])
    result = training.fit(model, train, valid, torch.device("cpu"))
    found = {"history": result.history, "weights": digest(model)}
    Path(f"{out}.{starting.here()}.json").write_text(json.dumps(found))
    ranks.end()


if __name__ == "__main__":
    main(*sys.argv[1:])
