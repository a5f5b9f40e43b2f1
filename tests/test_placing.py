"""Places of cells: depth and batch are taken out within groups, the types stay; what was not measured is as the latent says."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from xmodal.models.parts.levelling import FEWEST, Levelled
from xmodal.models.parts.placing import Place, Placing

CELLS, TYPES, WIDTH = 900, 3, 8


def cells(seed: int = 0) -> tuple[torch.Tensor, ...]:
    """Places of three types that move with depth and batch, each type along its own axes; type, log depth, batch columns."""
    draw = torch.Generator().manual_seed(seed)
    kind = torch.arange(CELLS) % TYPES
    depth = torch.randn(CELLS, generator=draw) + kind  # types differ in depth, which is not to be taken out
    batch = F.one_hot(torch.randint(0, 2, (CELLS,), generator=draw), 2).float()
    moves = torch.randn(TYPES, WIDTH, generator=torch.Generator().manual_seed(5))  # the same in all cells
    place = 6 * F.one_hot(kind, WIDTH).float() + 0.7 * torch.randn(CELLS, WIDTH, generator=draw)
    place = place + 0.3 * (depth - kind)[:, None] * moves[kind] + 0.8 * batch[:, :1] * moves[(kind + 1) % TYPES]
    return F.normalize(place, dim=1), kind, depth, batch


def told(place: torch.Tensor, kind: torch.Tensor, about: torch.Tensor) -> float:
    """R2 of ``about`` from the place within types, by least squares."""
    x, y = place.clone().double(), about.clone().double()
    for k in range(TYPES):
        x[kind == k] -= x[kind == k].mean(0)
        y[kind == k] -= y[kind == k].mean()
    rest = y - x @ torch.linalg.lstsq(x, y[:, None]).solution[:, 0]
    return float(1 - rest.square().sum() / y.square().sum())


def test_depth_and_batch_go_and_types_stay() -> None:
    place, _, depth, batch = cells()
    level = Levelled(WIDTH, 2, groups=TYPES)
    level.prepare(place, depth, batch)
    new, new_kind, new_depth, new_batch = cells(1)
    assert told(new, new_kind, new_depth) > 0.2 and told(new, new_kind, new_batch[:, 0]) > 0.25
    out = level(new, new_depth, new_batch)
    assert told(out, new_kind, new_depth) < 0.15 and told(out, new_kind, new_batch[:, 0]) < 0.15
    means = torch.stack([out[new_kind == k].mean(0) for k in range(TYPES)])
    assert (torch.cdist(out, means).argmin(1) == new_kind).float().mean() > 0.99
    torch.testing.assert_close(out.norm(dim=1), torch.ones(CELLS))


def test_few_cells_and_cells_without_counts_are_left_as_they_are() -> None:
    place, _, depth, batch = cells()
    level = Levelled(WIDTH, 2)
    few = FEWEST - 1
    level.prepare(place[:few], depth[:few], batch[:few])
    torch.testing.assert_close(level(place, depth, batch), place)
    level.prepare(place, depth, batch)
    assert not level(torch.zeros(2, WIDTH), depth[:2], batch[:2]).any()


def test_an_unreliable_modality_has_no_place_of_its_own() -> None:
    place, _, depth, batch = cells()
    placing = Placing(4, {"rna": WIDTH, "atac": WIDTH}, 2)
    one = Place(place, depth, torch.ones(CELLS, dtype=torch.bool))
    placing.prepare({"rna": one, "atac": one}, batch, {"rna": 1.0, "atac": 0.05})
    assert (float(placing.share("rna")), float(placing.share("atac"))) == (1.0, 0.0)
    assert float(placing.share("protein")) == 0.0


def test_what_was_not_measured_is_as_the_latent_says() -> None:
    place, _, depth, batch = cells()
    placing = Placing(4, {"rna": WIDTH, "protein": WIDTH}, 2)
    there = torch.arange(CELLS) % 2 == 0
    rna, protein = Place(place, depth, torch.ones_like(there)), Place(place, depth, there)
    placing.prepare({"rna": rna, "protein": protein}, batch, {"rna": 1.0, "protein": 1.0})
    direction = F.normalize(torch.randn(CELLS, 4, generator=torch.Generator().manual_seed(2)), dim=1)
    with torch.no_grad():
        out = placing(direction, {"rna": rna, "protein": protein}, batch, 0.7)
        latent = placing(direction, {"rna": rna, "protein": protein}, batch, 0.0)
    torch.testing.assert_close(out.norm(dim=1), torch.ones(CELLS))
    lacking = out[~there][:, WIDTH:] / latent[~there][:, WIDTH:]
    assert np.allclose(lacking.std(1), 0, atol=1e-4)  # the same direction, whatever its length
    measured = F.cosine_similarity(out[there][:, WIDTH:], placing.levelled["protein"](place, depth, batch)[there])
    assert measured.mean() > F.cosine_similarity(latent[there][:, WIDTH:], place[there]).mean() + 0.2
