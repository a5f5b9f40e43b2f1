"""Which cells train a model, which choose it, and which it never sees."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np
import pandas as pd

from xmodal.errors import InputRefused, UsageRefused
from xmodal.fields import SPLIT, TEST, TRAIN, VALID

PARTS = (TRAIN, VALID, TEST)


def assign(
    obs: pd.DataFrame,
    *,
    by: str | None,
    seed: int,
    test_fraction: float = 0.25,
    valid_fraction: float = 0.1,
    test_groups: Sequence[str] = (),
    valid_groups: Sequence[str] = (),
) -> tuple[pd.Series, dict[str, Any]]:
    """Draw train, valid and test for the cells of ``obs``.

    With ``by`` whole groups of that column are taken, at least one each, in an order drawn by ``seed``, until the part
    holds its fraction of the cells; named groups win.  Without ``by`` cells are drawn.  Returns the parts (cells,) as a
    categorical, and the facts: ``source`` ("groups" or "random"), ``seed``, ``by``, ``groups``, and how many.
    """
    if by is None:
        if test_groups or valid_groups:
            raise UsageRefused("--test-groups and --valid-groups need --split-by COLUMN")
        parts = _random(len(obs), seed, test_fraction, valid_fraction)
        return _finish(parts, obs, {"source": "random", "seed": seed, "by": None, "groups": {}})
    labels = _column(obs, by)
    sizes = labels.value_counts()
    chosen = {
        TEST: _known(test_groups, sizes.index, "--test-groups", by),
        VALID: _known(valid_groups, sizes.index, "--valid-groups", by),
    }
    if both := set(chosen[TEST]) & set(chosen[VALID]):
        raise UsageRefused(f"{', '.join(sorted(both))}: in --test-groups and in --valid-groups")
    facts: dict[str, Any] = {"source": "groups", "seed": seed, "by": by}
    rng = np.random.default_rng(seed)
    free = [g for g in sorted(sizes.index) if g not in {*chosen[TEST], *chosen[VALID]}]
    free = [free[i] for i in rng.permutation(len(free))]
    if not chosen[TEST]:
        _enough(len(free), 2 if chosen[VALID] else 3, by, sizes)
        chosen[TEST] = _take(free, sizes, test_fraction, keep=1 if chosen[VALID] else 2)
    cells_for_valid = not chosen[VALID] and len(free) == 1 and bool(test_groups)
    if not chosen[VALID] and not cells_for_valid:
        _enough(len(free), 2, by, sizes)
        chosen[VALID] = _take(free, sizes, valid_fraction, keep=1)
    _enough(len(free), 1, by, sizes)
    parts = labels.map({g: part for part in (TEST, VALID) for g in chosen[part]}).fillna(TRAIN).to_numpy(object)
    if cells_for_valid:  # one group is left: cells of it choose the model
        facts["valid_drawn_from_train"] = True
        _valid_from_train(parts, rng, valid_fraction)
    facts["groups"] = {TRAIN: sorted(free), VALID: sorted(chosen[VALID]), TEST: sorted(chosen[TEST])}
    return _finish(parts, obs, facts)


def from_file(obs: pd.DataFrame, seed: int, valid_fraction: float = 0.1) -> tuple[pd.Series, dict[str, Any]]:
    """The split a file brings in ``obs["xmodal_split"]``; without ``valid``, cells of train are drawn for it."""
    parts = obs[SPLIT].astype(object).to_numpy(copy=True)
    gaps = int(pd.isna(parts).sum())
    odd = sorted({str(p) for p in parts[~pd.isna(parts)]} - set(PARTS))
    if odd or gaps:
        what = f"it holds {', '.join(repr(o) for o in odd[:5])}" if odd else f"{gaps} cells have no value"
        raise InputRefused(
            what,
            where=f"obs['{SPLIT}']",
            do="write train, valid or test for every cell, or give --split-by COLUMN or --split random",
        )
    facts: dict[str, Any] = {"source": "file", "seed": seed, "by": None, "groups": {}}
    if not (parts == TRAIN).any():
        raise InputRefused("no cell is marked train", where=f"obs['{SPLIT}']", do="mark cells train, or --split random")
    if not (parts == VALID).any() and (parts == TRAIN).sum() > 1:
        facts["valid_drawn_from_train"] = True
        _valid_from_train(parts, np.random.default_rng(seed), valid_fraction)
    return _finish(parts, obs, facts)


def for_trial(obs: pd.DataFrame, valid_fraction: float = 0.1) -> tuple[pd.Series, dict[str, Any]]:
    """The split of a trial of a sweep: the file's validation cells are left for judging it, among its test cells.

    What trains is drawn from the file's training cells alone, a tenth of them to choose on, the same for every trial.
    Refused where the file marks no validation cells: they would differ between trials.
    """
    own = obs[SPLIT].astype(str).to_numpy() if SPLIT in obs else np.zeros(0, str)
    if not (own == VALID).any():
        raise InputRefused(
            "it marks no validation cells to judge a trial on",
            where=f"obs['{SPLIT}']",
            do="run xmodal prepare, with a larger --valid-fraction",
        )
    shown = obs[[SPLIT]].astype(str).replace({SPLIT: {VALID: TEST}})
    parts, facts = from_file(shown, 0, valid_fraction)
    judged = int((own == VALID).sum())
    return parts, {**facts, "source": "trial", "judged": judged, TEST: facts[TEST] - judged}


def near(name: str, known: Sequence[str]) -> str:
    """A question for the nearest known name, in whichever case, else what there is."""
    lowered = {str(k).lower(): str(k) for k in known}
    close = [lowered[n] for n in get_close_matches(name.lower(), lowered, 1)]
    return f"did you mean '{close[0]}'?" if close else f"there are: {', '.join(map(str, list(known)[:20]))}"


def kind_of(column: pd.Series) -> str:
    """The kind of its values as numpy says it: "f" for floats, "O" for texts, ..."""
    values = column.cat.categories if isinstance(column.dtype, pd.CategoricalDtype) else column
    return str(values.dtype.kind)


def is_continuous(column: pd.Series) -> bool:
    """Whether it holds numbers that are not whole, which name no groups; missing values are none."""
    if kind_of(column) != "f":
        return False
    values = pd.to_numeric(column.astype(object), errors="coerce").dropna().to_numpy(np.float64)
    return bool((values != np.rint(values)).any())


def _column(obs: pd.DataFrame, by: str) -> pd.Series:
    if by not in obs:
        raise InputRefused(f"obs has no column '{by}'", where="--split-by", do=near(by, list(obs.columns)))
    missing = int(obs[by].isna().sum())
    if missing:
        raise InputRefused(
            f"{missing} cells have no value in '{by}'",
            where="--split-by",
            do=f"fill the column, or leave these cells out with --exclude {by}=",
        )
    return obs[by].astype(str)


def _known(groups: Sequence[str], known: pd.Index, option: str, by: str) -> list[str]:
    for group in groups:
        if group not in known:
            raise InputRefused(f"'{by}' has no group '{group}'", where=option, do=near(group, sorted(known)))
    return list(dict.fromkeys(groups))


def _enough(free: int, needed: int, by: str, sizes: pd.Series) -> None:
    if free < needed:
        shown = ", ".join(f"{g} ({n})" for g, n in sizes.items())
        raise InputRefused(
            f"'{by}' has too few groups for train, valid and test: {shown}",
            where="--split-by",
            do="use a column with three groups or more, name --test-groups, or use --split random",
        )


def _take(free: list[str], sizes: pd.Series, fraction: float, keep: int) -> list[str]:
    """Groups from the front of ``free``, at least one, until ``fraction`` of all cells; ``keep`` groups stay."""
    taken: list[str] = []
    while len(free) > keep and (not taken or sizes[taken].sum() < fraction * sizes.sum()):
        taken.append(free.pop(0))
    return taken


def _random(cells: int, seed: int, test_fraction: float, valid_fraction: float) -> Any:
    if cells < 3:
        raise InputRefused(f"{cells} cells are too few for train, valid and test", do="give more cells")
    order = np.random.default_rng(seed).permutation(cells)
    test = min(max(1, round(test_fraction * cells)), cells - 2)
    valid = min(max(1, round(valid_fraction * cells)), cells - test - 1)
    parts = np.full(cells, TRAIN, dtype=object)
    parts[order[:test]] = TEST
    parts[order[test : test + valid]] = VALID
    return parts


def _valid_from_train(parts: Any, rng: np.random.Generator, fraction: float) -> None:
    train = rng.permutation(np.flatnonzero(parts == TRAIN))
    parts[train[: min(max(1, round(fraction * len(train))), len(train) - 1)]] = VALID


def _finish(parts: Any, obs: pd.DataFrame, facts: dict[str, Any]) -> tuple[pd.Series, dict[str, Any]]:
    series = pd.Series(pd.Categorical(parts, categories=list(PARTS)), index=obs.index, name=SPLIT)
    return series, {**facts, **{part: int((parts == part).sum()) for part in PARTS}}
