"""What names of files and folders say: sample, modality, filtered or raw.

Layouts: nf-core/scrnaseq (its docs/output.md: ``ALIGNER/mtx_conversions/SAMPLE/SAMPLE_filtered_matrix.h5ad``), Cell Ranger count,
multi, ATAC and ARC (10x Genomics, "Understanding outputs": ``SAMPLE/outs/...``), and folders of h5ad/h5mu.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from xmodal.data.io import ALSO_CALLED

# The better comes first.  '' is a file that does not say it.
STATES = ("filtered", "", "cellbender_filter", "custom_emptydrops_filter", "emptydrops_filter", "raw", "unfiltered")
WITH_EMPTY = ("raw", "unfiltered")  # droplets without a cell are in it
_STATE = "|".join(sorted((s for s in STATES if s), key=len, reverse=True))
TENX = re.compile(r"^(?P<sample>.*?)[._-]?(?P<state>filtered|raw)_(?:feature|gene|peak)_bc_matri(?:x|ces)(?:_h5)?\.h5$")
STEM = re.compile(rf"^(?P<sample>.*?)(?:(?:^|[._-])(?P<state>{_STATE}))?(?:(?:^|[._-])(?:matrix|counts))?$", re.I)
FRAGMENTS = re.compile(r"^(?P<sample>.*?)[._-]?(?:atac[._-])?fragments\.tsv\.gz$", re.I)
CONVERSIONS = "mtx_conversions"  # of nf-core/scrnaseq
PER_SAMPLE = "per_sample_outs"  # of Cell Ranger multi
AGGREGATED = ("aggregation.csv", "aggregation_csv.csv", "aggr.csv")  # beside what Cell Ranger aggr joined
NAMELESS = {"", "adata", "anndata", "data", "mudata", "paired", "multiome", "joint", "sample"}  # say no sample
FOLDERS = {"outs", "count", "multi", PER_SAMPLE}  # of Cell Ranger, likewise


@dataclass(frozen=True)
class Named:
    """What the place and name of a file say.  ``place``: the folder within which ``sample`` is one sample."""

    path: Path
    place: Path
    sample: str
    modality: str | None = None
    state: str = ""
    combined: bool = False
    converted: bool = False

    @property
    def rank(self) -> int:
        """0 is best: cells rather than droplets."""
        return STATES.index(self.state)


def read_name(path: Path, top: Path) -> Named | None:
    """``path`` below ``top`` as its name and folders describe it; None where the name is of no file that is looked for."""
    if path.suffix == ".h5":
        found = TENX.match(path.name)
        return _tenx(path, top, found["sample"], found["state"]) if found else None
    if path.name.endswith(".tsv.gz"):
        found = FRAGMENTS.match(path.name)
        return _tenx(path, top, found["sample"], "") if found else None
    return _annotated(path, top) if path.suffix in (".h5ad", ".h5mu") else None


def _tenx(path: Path, top: Path, sample: str, state: str) -> Named:
    folder, inner = path.parent, path.relative_to(top.parent).parts[:-1]
    if sample.lower() not in NAMELESS:
        return Named(path, folder.parent if folder.name == sample and folder != top else folder, sample, state=state)
    if PER_SAMPLE in inner:
        run = _above(folder, PER_SAMPLE)
        place = run.parent if run.name == "outs" else run
        below = path.relative_to(run).parts
        return Named(path, place, below[1] if len(below) > 2 else place.name, state=state)
    combined = folder.name == "count" and folder.parent.name == "multi"
    for near in (folder, folder.parent):
        combined = combined or (near / PER_SAMPLE).is_dir() or any((near / name).is_file() for name in AGGREGATED)
    run = _named_folder(folder)
    return Named(path, run.parent, run.name, state=state, combined=combined)


def _annotated(path: Path, top: Path) -> Named:
    found = STEM.match(path.stem)
    assert found is not None  # the sample may be anything
    sample, modality = _without_modality(found["sample"])
    state, folder = (found["state"] or "").lower(), path.parent
    if CONVERSIONS in path.relative_to(top.parent).parts[:-1]:  # ROOT/ALIGNER/mtx_conversions/SAMPLE
        root = _above(folder, CONVERSIONS).parent
        combined = sample.lower() in ("combined", "")
        return Named(path, root, sample or "combined", modality, state, combined, converted=True)
    if folder != top and folder.name.lower() in ALSO_CALLED:  # rna/S1.h5ad
        modality = modality or ALSO_CALLED[folder.name.lower()]
        folder = folder.parent
    if sample.lower() in NAMELESS:
        folder = _named_folder(folder)
        return Named(path, folder.parent, folder.name, modality, state)
    place = folder.parent if folder.name == sample and folder != top else folder
    return Named(path, place, sample, modality, state, sample.lower() == "combined")


def _without_modality(text: str) -> tuple[str, str | None]:
    """``S1_rna`` is ``S1`` and rna; a name that says two modalities or none stays whole."""
    parts = re.split(r"([._-])", text)  # word, sign, word, ...
    said = [i for i, part in enumerate(parts) if part.lower() in ALSO_CALLED]
    if len({ALSO_CALLED[parts[i].lower()] for i in said}) != 1:
        return text, None
    first = said[0]
    kept = parts[2:] if first == 0 else parts[: first - 1] + parts[first + 1 :]
    return "".join(kept), ALSO_CALLED[parts[first].lower()]


def _above(folder: Path, name: str) -> Path:
    """The folder that holds the folder ``name`` on the way up from ``folder``."""
    while folder.name != name:
        folder = folder.parent
    return folder.parent


def _named_folder(folder: Path) -> Path:
    """The nearest folder upwards whose name is not one that Cell Ranger gives."""
    while folder.name in FOLDERS:
        folder = folder.parent
    return folder
