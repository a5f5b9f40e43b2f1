from __future__ import annotations

from collections.abc import Callable

import anndata as ad
import mudata as mu
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from helpers_data import GENES, PEAKS, cells
from xmodal.data import contracts
from xmodal.errors import InputRefused


def counts() -> ad.AnnData:
    adata = cells(GENES)
    adata.X = adata.X.astype(np.float32)
    return adata


def logged(adata: ad.AnnData) -> ad.AnnData:
    raw = adata.X.toarray()
    adata.X = sp.csr_matrix(np.log1p(1e4 * raw / raw.sum(1, keepdims=True)))
    return adata


def put(value: float) -> Callable[[], ad.AnnData]:
    def make() -> ad.AnnData:
        adata = counts()
        adata.X.data[3] = value
        return adata

    return make


def with_names(obs: list[str] | None = None, var: list[str] | None = None) -> ad.AnnData:
    adata = counts()
    return ad.AnnData(
        adata.X, obs=pd.DataFrame(index=obs or adata.obs_names), var=pd.DataFrame(index=var or adata.var_names)
    )


def errors(adata: ad.AnnData, name: str = "rna", likelihood: str = "nb", **more: object) -> list[str]:
    found = contracts.check_modality(name, adata, likelihood, **more)  # type: ignore[arg-type]
    assert all(f.do for f in found)
    return [str(f) for f in found if f.level == "error"]


def test_good_counts_pass() -> None:
    assert contracts.check_modality("rna", counts(), "nb") == []


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (put(-2), "negative values .least: -2"),
        (put(float("nan")), "NaN"),
        (put(float("inf")), "infinite"),
        (put(0.5), "not whole numbers"),
        (lambda: logged(counts()), "looks log-normalised"),
        (lambda: with_names(obs=["c0"] * 2 + [f"x{i}" for i in range(28)]), "obs_names. are duplicated: 1 name, 'c0'"),
        (lambda: with_names(var=["g"] * 12), "feature names are duplicated"),
    ],
)
def test_each_wrong_value_is_one_error(make: Callable[[], ad.AnnData], message: str) -> None:
    found = errors(make())
    assert len(found) == 1
    with pytest.raises(InputRefused, match=message):
        contracts.require(contracts.check_modality("rna", make(), "nb"))


def test_raw_counts_elsewhere_are_pointed_to() -> None:
    adata = counts()
    adata.layers["umi"] = adata.X.copy()
    assert "--layer umi" in errors(logged(adata))[0]
    del adata.layers["umi"]
    adata = counts()
    adata.raw = adata.copy()
    assert "--layer raw" in errors(logged(adata))[0]


def test_values_are_fine_where_no_counts_are_needed() -> None:
    assert errors(put(-2.5)(), "protein", "gaussian", scale="identity") == []
    assert "gaussian" in errors(put(-2.5)(), "protein", "gaussian", scale="clr")[0]
    assert errors(put(float("nan"))(), "protein", "gaussian", scale="identity")


def test_peaks_that_do_not_parse() -> None:
    adata = cells([*PEAKS[:-2], "GAPDH", "chr1:9-3"])
    assert "2 of 16 peak names do not parse: 'GAPDH', 'chr1:9-3'" in errors(adata, "atac", "bernoulli")[0]


def test_empty_cells_warn_and_all_empty_is_an_error() -> None:
    adata = counts()
    matrix = adata.X.tolil()
    matrix[:2] = 0
    adata.X = matrix.tocsr()
    found = contracts.check_modality("rna", adata, "nb")
    assert [f.level for f in found] == ["warning"] and "2 of 30 cells" in found[0].what
    adata.X = sp.csr_matrix(adata.shape)
    assert "not one cell has a count" in errors(adata)[0]


def test_all_errors_in_one_message() -> None:
    first, second = put(-1)(), cells(["GAPDH"])
    with pytest.raises(InputRefused) as caught:
        contracts.require(
            [*contracts.check_modality("rna", first, "nb"), *contracts.check_modality("atac", second, "bernoulli")]
        )
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("rna: there are negative") and len(lines) == 2 and "GAPDH" in lines[1]


def test_a_list_that_goes_on_keeps_its_dots() -> None:
    assert str(InputRefused("wrong: a, b, ...", do="mend")) == "wrong: a, b, ... What to do: mend"
    assert str(InputRefused("wrong.", do="mend it.")) == "wrong. What to do: mend it"


def index(*names: str) -> pd.Index:
    return pd.Index(names)


BARCODES = ["AAACAGCCAAGGAATC", "AAACAGCCAATCCCTT", "AAACATGCAAACGGTT", "AAACCAACACTTACAG"]


@pytest.mark.parametrize(
    ("first", "second", "named"),
    [
        (lambda b: f"{b}-1", lambda b: b, r"suffix .*'-1' against none"),
        (lambda b: f"{b}-1", lambda b: f"{b}-2", r"suffix .*'-1' against '-2'"),
        (lambda b: f"s1_{b}", lambda b: b, r"prefix .*'s1_' against none"),
        (lambda b: f"s1_{b}-1", lambda b: f"s2#{b}", r"prefix and suffix .*'-1'/'s1_' against 's2#'"),
    ],
)
def test_affixes_that_keep_cells_apart_are_named(
    first: Callable[[str], str], second: Callable[[str], str], named: str
) -> None:
    pairs = {"rna": index(*map(first, BARCODES)), "atac": index(*map(second, BARCODES))}
    found = contracts.check_pairing(pairs)
    assert [f.level for f in found] == ["error"]
    with pytest.raises(InputRefused, match=named):
        contracts.require(found)


def test_pairing_partly() -> None:
    found = contracts.check_pairing({"rna": index(*BARCODES), "atac": index(*BARCODES[:3], "x")})
    assert [f.level for f in found] == ["note"]
    found = contracts.check_pairing({"rna": index(*BARCODES), "atac": index(BARCODES[0], "x", "y", "z")})
    assert [f.level for f in found] == ["warning"]
    found = contracts.check_pairing({"rna": index("a", "b"), "atac": index("x", "y")})
    assert found[0].level == "error" and "same cells" in found[0].do


def test_cells_as_a_whole() -> None:
    mu.set_options(pull_on_update=False)
    rna = counts()
    assert "one modality only (rna)" in contracts.check_cells(mu.MuData({"rna": rna}))[0].what
    one = mu.MuData({"rna": rna[:1].copy(), "atac": cells(PEAKS)[:1].copy()})
    assert [f.level for f in contracts.check_cells(one)] == ["error"]
    assert contracts.check_cells(one, training=False) == []


def test_likelihoods() -> None:
    adata = counts()
    assert contracts.resolve_likelihood("rna", adata, None) == ("nb", "log1p_cp10k")
    assert contracts.resolve_likelihood("protein", adata, "gaussian") == ("gaussian", "clr")
    assert contracts.resolve_likelihood("methyl", put(0.5)(), None) == ("gaussian", "identity")
    with pytest.raises(InputRefused, match="--likelihood methyl="):
        contracts.resolve_likelihood("methyl", adata, None)
