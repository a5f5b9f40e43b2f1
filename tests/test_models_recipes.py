"""`make models`: recipes, sources, expected scores, cards and the data table, on small local data by the same path."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import h5py
import mudata
import numpy as np
import pytest
import scipy.sparse as sp
import yaml

from helpers_nextflow import ROOT
from xmodal.errors import InputRefused, XmodalError

SCRIPT = ROOT / "scripts" / "models"
RECIPES = sorted((ROOT / "assets" / "models").glob("*.yml"))


@pytest.fixture(scope="module", autouse=True)
def importable() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "scripts"))
        yield


def module(name: str) -> Any:
    return importlib.import_module(f"reference_models.{name}")


def models(*arguments: Any, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    command = [SCRIPT, *map(str, arguments), "--threads", "1", "--device", "cpu"]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=timeout, check=False)


def write_10x(path: Path, cells: mudata.MuData, genome: bytes = b"GRCh38") -> Path:
    """The cells as a filtered_feature_bc_matrix.h5 of Cell Ranger ARC."""
    parts = [cells["rna"], cells["atac"]]
    matrix = sp.hstack([part.X for part in parts]).tocsr()
    names = np.concatenate([part.var_names for part in parts]).astype("S")
    kinds = np.repeat([b"Gene Expression", b"Peaks"], [part.n_vars for part in parts])
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix")
        group["data"], group["indices"] = matrix.data.astype(np.int32), matrix.indices.astype(np.int64)
        group["indptr"], group["shape"] = matrix.indptr.astype(np.int64), np.array(matrix.shape[::-1], np.int32)
        group["barcodes"] = cells.obs_names.to_numpy().astype("S")
        features = group.create_group("features")
        features["id"] = features["name"] = names
        features["feature_type"] = kinds
        features["genome"] = np.repeat(genome, len(names))
    return path


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Simulated cells that are coupled closely, as a 10x file."""
    folder = tmp_path_factory.mktemp("source")
    options = ["--cells", "400", "--genes", "40", "--peaks", "60", "--no-rates", "--depth", "3000", "--open", "0.2"]
    coupled = ["--coupling", "linear", "--gain-rna", "1.5", "--gain-atac", "2.0", "--threads", "1"]
    command = [ROOT / ".venv/bin/xmodal", "simulate", "-o", folder / "simulated", *options, *coupled]
    subprocess.run(command, check=True, capture_output=True)
    mudata.set_options(pull_on_update=False)
    return write_10x(folder / "cells.h5", mudata.read_h5mu(folder / "simulated/paired.h5mu"))


def local(folder: Path, matrix: Path, name: str = "local", **changes: Any) -> Path:
    """A recipe of the 10x file, trained in a second."""
    demo = yaml.safe_load((ROOT / "assets/models/demo.yml").read_text())
    content = {
        **demo,
        "id": "local_test",
        "title": "Local cells (hg38)",
        "sources": [{"name": "cells.h5", "path": str(matrix), "sha256": sha256(matrix)}],
        "simulate": [],
        "prepare": ["--h5", "{sources}/cells.h5"],
        "train": ["--model", "linear"],
        "evaluate": ["--umap-cells", "0"],
        "expected": {"rna": {"gene_pearson": {"at_least": 0.1, "beats": ["mean", "depth"]}}},
    }
    file = folder / f"{name}.yml"
    file.write_text(yaml.safe_dump(content | changes, allow_unicode=True))
    return file


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def table(folder: Path) -> list[list[str]]:
    loc = folder / "xmodal_models.loc"
    lines = loc.read_text().splitlines() if loc.exists() else []
    return [line.split("\t") for line in lines if not line.startswith("#")]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, matrix: Path) -> Path:
    """The folder of all models, in which the local recipe was made of a file from a real server."""
    folder = tmp_path_factory.mktemp("made")
    with serving(matrix.parent) as address:
        source = {"name": "cells.h5", "url": f"{address}/cells.h5", "sha256": sha256(matrix)}
        done = models(local(folder, matrix, sources=[source]), "--output-dir", folder / "models")
    assert done.returncode == 0, done.stderr
    return folder / "models"


# The whole path


def test_a_model_is_made_described_and_registered(made: Path) -> None:
    place = made / "local"
    assert list((made / "sources").glob("*/cells.h5"))
    there = {p.name for p in place.iterdir()}
    assert there == {
        "model.safetensors",
        "model_card.md",
        "model_card.html",
        "report.html",
        "made.json",
        "prepared.json",
        "training",
        "evaluation",
    }
    model = place / "model.safetensors"
    expected = ["local_test", "Local cells (hg38)", "hg38", "rna:atac,atac:rna", sha256(model), str(model)]
    assert table(made) == [expected]
    assert (place / "evaluation/metrics.json").is_file() and (place / "training/history.tsv").is_file()
    assert not [p for p in made.iterdir() if p.name.endswith((".making", ".old", ".missed"))]


def test_the_card_says_what_counts(made: Path, matrix: Path) -> None:
    text = (made / "local/model_card.md").read_text()
    scores = json.loads((made / "local/evaluation/metrics.json").read_text())
    own = scores["targets"]["rna"]["methods"]
    row = [own[m]["gene_pearson"] for m in ("prediction", "mean", "depth", "linear")]
    shown = " | ".join(f"{value:.3f}".replace("-0.000", "0.000") for value in row)
    assert f"| Per-gene correlation | {shown} |" in text
    for said in (
        "must not be used for",
        "Limits",
        "Licence",
        "Attribution",
        "How to cite",
        "drawn at random",
        "hg38",
        sha256(matrix),
        sha256(made / "local/model.safetensors"),
        "Seed | 1 |",
        "400 of 400",
        "gene_pearson: at least 0.1 and better than mean, depth",
    ):
        assert said in text, said
    assert str(made) not in text and not re.search(r"\d\d:\d\d:\d\d|20\d\d-\d\d-\d\d", text)


def test_the_page_is_one_that_sanitisers_keep(made: Path) -> None:
    page = (made / "local/model_card.html").read_text()
    assert not re.search(r"<(script|style|link|iframe|object|form)\b|\son\w+=|javascript:", page, re.IGNORECASE)
    sources = re.findall(r'src="([^"]*)"', page)
    assert sources and all(source.startswith("data:image/png;base64,") for source in sources)
    assert "<table" in page and "must not be used for" in page


def test_a_finished_model_is_not_made_again_and_its_words_are(made: Path, matrix: Path, tmp_path: Path) -> None:
    """Of the same file at another place, without the server."""
    before = (made / "local/model.safetensors").stat().st_mtime_ns
    file = local(tmp_path, matrix, title="Another name", not_for=["<b>cats</b>"])
    done = models(file, "--output-dir", made)
    assert done.returncode == 0 and "made already" in done.stderr and "xmodal train" not in done.stderr
    assert (made / "local/model.safetensors").stat().st_mtime_ns == before
    assert [row[:2] for row in table(made)] == [["local_test", "Another name"]]
    assert "<b>cats" not in (made / "local/model_card.html").read_text()
    assert "&lt;b>cats" in (made / "local/model_card.md").read_text()


def test_a_model_that_misses_is_kept_apart_and_not_registered(made: Path, matrix: Path, tmp_path: Path) -> None:
    out = tmp_path / "models"
    shutil.copytree(made, out)
    shutil.copytree(made / "local", out / ".other.making")  # stopped after its training
    registered = table(out)
    bounds = {"rna": {"gene_pearson": {"at_least": 0.999}, "rmse_log1p": {"beats": ["linear"]}}}
    other = partial(local, tmp_path, matrix, name="other", id="other")
    done = models(other(expected=bounds), "--output-dir", out)
    assert done.returncode == 3
    last = done.stderr.splitlines()[-1]
    assert re.search(r"rna gene_pearson is 0\.\d{4}, 0\.\d{4} below the 0\.999 asked for", last), last
    assert "rna rmse_log1p is" in last and "not better than the control linear" in last and "What to do:" in last
    assert not (out / "other").exists() and (out / "other.missed/report.html").is_file()
    assert "misses what its recipe asks for" in (out / "other.missed/model_card.md").read_text()
    assert table(out) == registered
    # Looser bounds: it is promoted without training again.
    loose = models(other(), "--output-dir", out)
    assert loose.returncode == 0 and "xmodal train" not in loose.stderr
    assert [row[0] for row in table(out)] == ["local_test", "other"] and not (out / "other.missed").exists()
    # Stricter ones: it is taken back.
    assert models(other(expected=bounds), "--output-dir", out).returncode == 3
    assert table(out) == registered and not (out / "other").exists()


def test_sigterm_leaves_nothing_that_looks_complete(matrix: Path, tmp_path: Path) -> None:
    file = local(tmp_path, matrix, train=["--model", "crossmp", "--set", "epochs=5000", "--set", "patience=5000"])
    out = tmp_path / "models"
    command = [SCRIPT, file, "--output-dir", out, "--threads", "1", "--device", "cpu"]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    ) as process:
        assert process.stderr
        for line in process.stderr:
            if "epoch 3/" in line:
                process.send_signal(signal.SIGTERM)
                break
        process.communicate(timeout=60)
    assert process.returncode == 143
    assert not (out / "local").exists() and not (out / "local.missed").exists() and not table(out)
    assert (out / ".local.making/training/state.safetensors").is_file()  # the next run goes on from here


# Sources


def test_one_recipe_without_network_does_not_stop_the_others(made: Path, matrix: Path, tmp_path: Path) -> None:
    source = {"name": "cells.h5", "url": "http://127.0.0.1:9/cells.h5"}
    far = local(tmp_path, matrix, name="far", sources=[source])
    near = local(tmp_path, matrix, title="Another name", not_for=["<b>cats</b>"])
    done = models(far, near, "--output-dir", made)
    assert done.returncode == 77
    assert f"{made / 'local'}" in done.stdout and "Traceback" not in done.stderr
    [said] = [line for line in done.stderr.splitlines() if "not made" in line]
    assert "127.0.0.1:9" in said and "cannot be fetched" in said and "What to do:" in said
    assert not (made / "far").exists()


class Ranges(SimpleHTTPRequestHandler):
    """Serves a folder; the first answer of /once-cut/... breaks off in the middle, and ranges are understood."""

    asked: list[str | None] = []  # noqa: RUF012
    cut = False

    def do_GET(self) -> None:
        content = (Path(self.directory) / Path(self.path).name).read_bytes()
        wanted = self.headers.get("Range")
        type(self).asked.append(wanted)
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        self.send_response(206 if wanted else 200)
        self.send_header("ETag", '"v1"')
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        end = len(content) // 2 if type(self).cut else len(content)
        type(self).cut = False
        self.wfile.write(content[start:end])

    def log_message(self, *_: Any) -> None:
        """Quiet."""


class serving:
    """A real server of a folder on this machine."""

    def __init__(self, folder: Path, cut: bool = False) -> None:
        Ranges.asked, Ranges.cut = [], cut
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Ranges, directory=str(folder)))

    def __enter__(self) -> str:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


def fetched(address: str, folder: Path, **sums: str) -> Path:
    source = module("recipe").Source(name="cells.h5", url=f"{address}/cells.h5", **sums)
    found: Path = module("fetching").fetch(source, folder / "recipe.yml", folder / "sources")
    return found


def test_a_broken_download_goes_on_and_only_then_has_its_name(matrix: Path, tmp_path: Path) -> None:
    with serving(matrix.parent, cut=True) as address:
        with pytest.raises(XmodalError, match=r"bytes came|cannot be fetched") as caught:
            fetched(address, tmp_path)
        assert caught.value.exit_code == 77
        assert not list(tmp_path.glob("sources/*/cells.h5"))
        assert sha256(fetched(address, tmp_path, sha256=sha256(matrix))) == sha256(matrix)
        half = matrix.stat().st_size // 2
        assert Ranges.asked == [None, f"bytes={half}-"]
        fetched(address, tmp_path, md5=hashlib.md5(matrix.read_bytes()).hexdigest())
        assert len(Ranges.asked) == 2  # it was there


def test_another_file_than_the_recipe_states_is_refused_and_removed(matrix: Path, tmp_path: Path) -> None:
    with serving(matrix.parent) as address, pytest.raises(InputRefused, match="the recipe states 0000"):
        fetched(address, tmp_path, sha256="0" * 64)
    assert not [p for p in tmp_path.glob("sources/*/*") if p.suffix in (".h5", ".part")]
    file = local(tmp_path, matrix, sources=[{"name": "cells.h5", "path": str(matrix), "md5": "0" * 32}])
    done = models(file, "--output-dir", tmp_path / "models")
    assert done.returncode == 3 and "its md5 is" in done.stderr and not (tmp_path / "models/local").exists()


# Recipes and the table


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_recipes_of_the_project_are_whole(file: Path) -> None:
    recipe = module("recipe").read(file)
    assert recipe.limits and recipe.not_for and recipe.cite and recipe.expected
    if recipe.sources:
        assert "CC BY 4.0" in recipe.data.licence and "10x Genomics" in recipe.data.attribution
        assert all(source.url.startswith("https://") for source in recipe.sources)
    if not recipe.run_by_us:  # then no numbers are known
        assert all(b.at_least is b.at_most is None and b.beats for of in recipe.expected.values() for b in of.values())
    assert {name for option in recipe.prepare for name in re.findall(r"{(\w+)}", option)} <= {"sources", "simulated"}


@pytest.mark.parametrize(("name", "genome"), [("pbmc-multiome-10k", b"GRCh38"), ("mouse-e18-brain-5k", b"mm10")])
def test_prepare_takes_the_options_of_recipes_that_need_a_network(
    name: str, genome: bytes, matrix: Path, tmp_path: Path
) -> None:
    recipe = module("recipe").read(ROOT / f"assets/models/{name}.yml")
    mudata.set_options(pull_on_update=False)
    cells = mudata.read_h5mu(matrix.parent / "simulated/paired.h5mu")
    write_10x(tmp_path / recipe.sources[0].name, cells, genome)
    options = [option.replace("{sources}", str(tmp_path)) for option in recipe.prepare]
    command = [ROOT / ".venv/bin/xmodal", "prepare", *options, "--output", tmp_path / "prepared.h5mu", "--threads", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"genome {recipe.id.rpartition('_')[2]}" in done.stderr


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"id": "Not an id"}, "id"),
        ({"title": "a\tb"}, "title"),
        ({"sources": [{"name": "../x", "path": "x"}]}, "sources.0.name"),
        ({"sources": [{"name": "x", "url": "http://example.org/x"}]}, "needs a sha256"),
        ({"sources": [{"name": "x", "url": "ftp://example.org/x"}]}, "must begin with"),
        ({"sources": [{"name": "x"}]}, "either url or path"),
        ({"sources": []}, "sources or simulate"),
        ({"directions": ["rna-atac"]}, "directions"),
        ({"expected": {"protein": {"rmse": {"at_most": 1}}}}, "no target"),
        ({"expected": {"rna": {"gene_pearson": {"beats": ["luck"]}}}}, "expected"),
        ({"not_for": []}, "not_for"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_wrong_recipe_is_refused_by_the_name_of_what_is_wrong(
    matrix: Path, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputRefused, match=re.escape(said)):
        module("recipe").read(local(tmp_path, matrix, **changes))


def test_an_unknown_recipe_is_refused_with_the_known_ones() -> None:
    done = models("nonsense")
    assert done.returncode == 3 and "demo" in done.stderr and "Traceback" not in done.stderr


def test_a_folder_that_cannot_be_made_is_said_in_one_line(matrix: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = models(local(tmp_path, matrix), "--output-dir", tmp_path / "file" / "models")
    assert done.returncode == 3 and "What to do:" in done.stderr and "Traceback" not in done.stderr


def test_bounds_say_by_how_much() -> None:
    bound = module("recipe").Bound
    methods = {"prediction": {"rmse": 1.5, "gene_pearson": 0.2}, "linear": {"rmse": 1.4, "gene_pearson": 0.1}}
    scores = {"targets": {"rna": {"methods": methods}}}
    missed = partial(module("expected").missed, scores=scores)
    assert missed({"rna": {"gene_pearson": bound(at_least=0.2, beats=("linear",))}}) == []
    assert missed({"rna": {"rmse": bound(at_most=1.5)}}) == []
    assert missed({"rna": {"rmse": bound(at_most=1.25)}}) == ["rna rmse is 1.5000, 0.2500 above the 1.25 allowed"]
    assert missed({"rna": {"rmse": bound(beats=("linear",))}}) == [
        "rna rmse is 1.5000, not better than the control linear (1.4000)"
    ]
    assert "has none" in missed({"rna": {"rmse": bound(beats=("depth",))}})[0]
    assert missed({"rna": {"peak_auroc": bound(at_least=0.5)}}) == ["rna peak_auroc was not computed"]


def test_the_table_keeps_other_lines_and_has_no_duplicates(tmp_path: Path) -> None:
    kept = module("table")
    loc = tmp_path / "xmodal_models.loc"
    loc.write_text("# mine\na\tA\thg38\trna:atac\t0\t/a\nb\tB\thg38\trna:atac\t0\t/b\nb\tB2\thg38\trna:atac\t1\t/b2")
    kept.register(loc, kept.Row("b", "New", "mm10", "rna:atac", "2", Path("/new")))
    lines = ["# mine", "a\tA\thg38\trna:atac\t0\t/a", "b\tNew\tmm10\trna:atac\t2\t/new"]
    assert loc.read_text().splitlines() == lines
    kept.unregister(loc, "b", "another sum")
    assert loc.read_text().splitlines() == lines
    kept.unregister(loc, "b", "2")
    assert loc.read_text().splitlines() == lines[:2]
    with pytest.raises(InputRefused, match="tab"):
        kept.register(loc, kept.Row("c", "a\tb", "mm10", "rna:atac", "2", Path("/new")))


def test_two_runs_do_not_make_the_same_model(matrix: Path, tmp_path: Path) -> None:
    import fcntl

    out = tmp_path / "models"
    out.mkdir()
    with (out / ".local.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = models(local(tmp_path, matrix), "--output-dir", out)
    assert done.returncode == 3 and "another run makes this model" in done.stderr


@pytest.mark.slow
def test_the_demo_recipe_makes_its_model(tmp_path: Path) -> None:
    start = time.monotonic()
    done = models("demo", "--output-dir", tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "demo/model.safetensors").stat().st_size < 500_000
    assert table(tmp_path)[0][:4] == [
        "demo_simulated",
        "Demo: simulated cells, for trying out only",
        "simulated",
        "rna:atac,atac:rna",
    ]
    assert "simulated" in (tmp_path / "demo/model_card.md").read_text()
    assert time.monotonic() - start < 300
