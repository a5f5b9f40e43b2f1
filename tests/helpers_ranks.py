"""Run by torchrun, or alone: trains a model and writes what each process has of it.  PREPARED MODEL OUT WHAT NAME=VALUE ..."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch

from xmodal import ranks, registry, starting
from xmodal.data import io
from xmodal.data.batches import Cells, cells_of
from xmodal.data.vocabulary import Vocabulary
from xmodal.learning import training
from xmodal.learning.training_job import parse_settings
from xmodal.learning.training_state import Keeper, Reader
from xmodal.models.base import CrossModalModel


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


def with_gaps(cells: Cells) -> Cells:
    """Every fifth cell without peaks."""
    there = np.arange(len(cells)) % 5 > 0
    counts = sp.csr_matrix(cells.counts["atac"].multiply(there[:, None]))
    return replace(cells, counts={**cells.counts, "atac": counts}, present={**cells.present, "atac": there})


def stop_and_go_on(make: Callable[[], CrossModalModel], parts: tuple[Cells, Cells], state: Path) -> str:
    """The weights after a training that stopped in its third epoch and went on from what the first process kept."""
    whole, calls = training._one_epoch, []

    def stopping(*args: object) -> training.Row:
        calls.append(1)
        if len(calls) == 3:
            raise SystemExit
        return whole(*args)  # type: ignore[arg-type]

    def keeper(exists: bool) -> Keeper:
        return Keeper(state, "run", 0.0) if ranks.first() else Reader(state if exists else None, "run")

    training._one_epoch = stopping
    try:
        training.fit(make(), *parts, torch.device("cpu"), keeper=keeper(False))
    except SystemExit:
        training._one_epoch = whole
    model = make()
    if starting.asked():
        torch.distributed.barrier()  # the first process has written
    result = training.fit(model, *parts, torch.device("cpu"), keeper=keeper(state.exists()))
    assert result.resumed == 2
    return digest(model)


def main(prepared: str, name: str, out: str, what: str, *changes: str) -> None:
    torch.set_num_threads(1)
    ranks.begin(torch.device("cpu"))
    if starting.asked():
        ranks.agree = require_equal
    mdata = io.read_cells(Path(prepared))
    cells = cells_of(mdata, Vocabulary.from_prepared(mdata))
    if what == "gaps":
        cells = with_gaps(cells)
    if what == "dies" and starting.here():
        training._one_epoch = lambda *args: os._exit(7)

    def make() -> CrossModalModel:
        torch.manual_seed(0)
        kind = registry.get(name)
        return kind.build(parse_settings(kind, changes), cells.vocabulary)

    model = make()
    order = torch.randperm(len(cells), generator=torch.Generator().manual_seed(0)).numpy()
    train, valid = cells.subset(order[: len(order) * 3 // 4]), cells.subset(order[len(order) * 3 // 4 :])
    result = training.fit(model, train, valid, torch.device("cpu"))
    if what == "stops":
        assert stop_and_go_on(make, (train, valid), Path(f"{out}.safetensors")) == digest(model)
    found = {"history": result.history, "weights": digest(model)}
    Path(f"{out}.{starting.here()}.json").write_text(json.dumps(found))
    ranks.end()


if __name__ == "__main__":
    main(*sys.argv[1:])
