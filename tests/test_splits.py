from __future__ import annotations

import pandas as pd
import pytest

from xmodal.data import splits
from xmodal.errors import InputRefused, UsageRefused


def obs(groups: int = 8, each: int = 10) -> pd.DataFrame:
    n = groups * each
    return pd.DataFrame({"donor": [f"d{i % groups}" for i in range(n)]}, index=[f"c{i}" for i in range(n)])


def test_whole_groups_and_the_same_for_the_same_seed() -> None:
    first, facts = splits.assign(obs(), by="donor", seed=3)
    again, _ = splits.assign(obs(), by="donor", seed=3)
    assert first.equals(again) and facts["source"] == "groups" and facts["by"] == "donor"
    assert pd.crosstab(obs()["donor"], first).gt(0).sum(1).eq(1).all()  # no donor in two parts
    assert (facts["test"], facts["valid"], facts["train"]) == (20, 10, 50)
    assert any(not splits.assign(obs(), by="donor", seed=s)[0].equals(first) for s in (4, 5, 6))


def test_random_split_counts_and_names() -> None:
    series, facts = splits.assign(obs(), by=None, seed=1)
    assert series.value_counts().to_dict() == {"train": 52, "test": 20, "valid": 8}
    assert series.index.equals(obs().index) and facts["source"] == "random"


def test_named_groups_win() -> None:
    _, facts = splits.assign(obs(), by="donor", seed=1, test_groups=["d2"], valid_groups=["d5"])
    assert facts["groups"]["test"] == ["d2"] and facts["groups"]["valid"] == ["d5"] and facts["train"] == 60
    with pytest.raises(InputRefused, match="did you mean 'd2'"):
        splits.assign(obs(), by="donor", seed=1, test_groups=["D2"])
    with pytest.raises(UsageRefused, match="in --test-groups and"):
        splits.assign(obs(), by="donor", seed=1, test_groups=["d2"], valid_groups=["d2"])
    with pytest.raises(UsageRefused, match="need --split-by"):
        splits.assign(obs(), by=None, seed=1, test_groups=["d2"])


def test_too_few_groups_and_two_with_a_named_test_group() -> None:
    with pytest.raises(InputRefused, match=r"too few groups .* d0 \(10\)"):
        splits.assign(obs(2), by="donor", seed=0)
    series, facts = splits.assign(obs(2), by="donor", seed=0, test_groups=["d1"])
    assert facts["valid_drawn_from_train"] and facts["test"] == 10 and facts["valid"] == 1
    assert set(obs(2)["donor"][series == "test"]) == {"d1"}
    with pytest.raises(InputRefused, match="too few groups"):
        splits.assign(obs(2), by="donor", seed=0, test_groups=["d0", "d1"])


def test_columns_that_do_not_do() -> None:
    with pytest.raises(InputRefused, match="did you mean 'donor'"):
        splits.assign(obs(), by="doner", seed=0)
    table = obs()
    table.loc["c0", "donor"] = None
    with pytest.raises(InputRefused, match=r"1 cells have no value.*--exclude donor="):
        splits.assign(table, by="donor", seed=0)
    with pytest.raises(InputRefused, match="too few"):
        splits.assign(obs().iloc[:2], by=None, seed=0)


def test_the_files_own_split() -> None:
    table = obs().assign(xmodal_split=["train"] * 60 + ["test"] * 20)
    series, facts = splits.from_file(table, seed=0)
    assert facts["source"] == "file" and facts["valid"] == 6 and facts["test"] == 20
    assert (series[60:] == "test").all()
    with pytest.raises(InputRefused, match="'holdout'"):
        splits.from_file(obs().assign(xmodal_split="holdout"), seed=0)
    table.loc["c0", "xmodal_split"] = None
    with pytest.raises(InputRefused, match="1 cells have no value"):
        splits.from_file(table, seed=0)
    with pytest.raises(InputRefused, match="no cell is marked train"):
        splits.from_file(obs().assign(xmodal_split="test"), seed=0)
