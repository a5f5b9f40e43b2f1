"""The example that a portal starts with: a model and cells that fit it.

The demonstration model of ``make models`` where it has been made, with test cells of its simulation; else the small ones
of the tools' tests.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml

from portal.server import ROOT

RECIPE = ROOT / "assets" / "models" / "demo.yml"
TEST_DATA = ROOT / "galaxy_tools" / "test-data"
MODEL = "demo_simulated"


@dataclass(frozen=True)
class Example:
    """``cells``: an h5ad of RNA.  ``lines``: the table that names the model for them."""

    cells: Path
    lines: Path


def example(folder: Path, made: Path) -> Example:
    """What fits to ``made``, the table of ``make models``; cells are made in ``folder`` once."""
    if not made.exists() or MODEL not in made.read_text().split():
        return Example(TEST_DATA / "rna.h5ad", TEST_DATA / "xmodal_models.loc")
    cells = folder / "example_rna.h5ad"
    if not cells.exists():
        _simulate(folder / "simulated", cells)
    return Example(cells, made)


def _simulate(folder: Path, output: Path) -> None:
    """RNA of the cells that the demonstration model has not seen, simulated as its recipe says."""
    import anndata

    recipe = yaml.safe_load(RECIPE.read_text())
    xmodal = Path(sys.executable).parent / "xmodal"
    command: list[str | Path] = [xmodal, "simulate", *recipe["simulate"], "--seed", str(recipe["seed"])]
    subprocess.run(
        [*command, "--output-dir", str(folder), "--overwrite", "--quiet"], check=True, stdout=subprocess.DEVNULL
    )
    cells = anndata.read_h5ad(folder / "rna.h5ad")
    unseen = cells[cells.obs["xmodal_split"] == "test"].copy()
    unseen.write_h5ad(output.with_suffix(".part"))
    output.with_suffix(".part").replace(output)
