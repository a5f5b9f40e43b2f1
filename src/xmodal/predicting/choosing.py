"""Which features of the target are wanted: by name, by region, or by a file of either (``--features``)."""

from __future__ import annotations

import gzip
import hashlib
import logging
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from xmodal import fields
from xmodal.data.peak_sets import GZIP, HEADS
from xmodal.errors import InputRefused

if TYPE_CHECKING:
    import pandas as pd

    from xmodal.data.vocabulary import Modality

log = logging.getLogger(__name__)
Index = npt.NDArray[np.int64]
SHOWN = 5  # unknown names in a message
OPTION = "--features"


@dataclass(frozen=True)
class Chosen:
    """Some features of a modality: their ``positions`` in the checkpoint, ascending, (chosen,)."""

    modality: Modality
    positions: Index

    def restricted(self) -> Modality:
        """The modality with these features only."""
        one, ids = self.modality, self.modality.gene_ids
        names = tuple(one.features[i] for i in self.positions)
        return replace(one, features=names, gene_ids=None if ids is None else tuple(ids[i] for i in self.positions))

    def to_json(self) -> dict[str, Any]:
        """How many of how many, and a digest of their names, by which parts of other choices are told apart."""
        names = "\n".join(self.restricted().features)
        digest = hashlib.sha256(names.encode()).hexdigest()
        return {"features": len(self.positions), "of": len(self.modality), "sha256": digest}


def chosen(asked: tuple[str, ...], modality: Modality) -> Chosen | None:
    """The features that ``asked`` names; None where nothing was asked.  Unknown names, and none at all, are refused.

    Each of ``asked``: the name or Ensembl id of a feature, ``chrom:start-end`` (0-based, half-open: all peaks that share a base
    with it), a BED file, or a file with one of these names in each line; several with commas.
    """
    if not asked:
        return None
    names = Names(modality)
    for text in asked:
        names.take(text)
    names.require_known()
    if not len(names.found):
        raise InputRefused(
            f"no {modality.name} feature of the checkpoint is among those asked for",
            where=OPTION,
            do=f"give names such as {', '.join(modality.features[:2])}, or other regions",
        )
    log.info("%d of %d features of %s were asked for", len(names.found), len(modality), modality.name)
    return Chosen(modality, np.array(sorted(names.found), np.int64))


class Names:
    """Takes what was asked for, piece by piece: ``found`` positions of features, ``unknown`` names."""

    def __init__(self, modality: Modality) -> None:
        self.modality = modality
        self.found: set[int] = set()
        self.unknown: list[str] = []
        ids = enumerate(modality.gene_ids or ())
        self.places = {_unversioned(g): i for i, g in ids} | {f: i for i, f in enumerate(modality.features)}

    def take(self, text: str) -> None:
        """One value of the option."""
        if text not in self.places and _is_file(text):
            self._file(Path(text))
            return
        for part in (p.strip() for p in text.split(",")):
            if part not in self.places and _is_file(part):
                self._file(Path(part))
            elif part:
                self._name(part)

    def require_known(self) -> None:
        if not self.unknown:
            return
        many, first = len(self.unknown), ", ".join(self.unknown[:SHOWN])
        raise InputRefused(
            f"{many} of the names asked for {'is' if many == 1 else 'are'} no {self.modality.name} feature of the "
            f"checkpoint: {first}{', ...' if many > SHOWN else ''}",
            where=OPTION,
            do=f"{_near(self.unknown[:SHOWN], self.modality)}, a region chrom:start-end, or a file that exists",
        )

    def _name(self, text: str) -> None:
        from xmodal.data.intervals import split_peaks

        place = self.places.get(text, self.places.get(_unversioned(text)))
        if place is not None:
            self.found.add(place)
            return
        region = split_peaks([text])
        if region[fields.CHROM].isna().any():
            self.unknown.append(text)
        else:
            self._regions(region.astype({fields.START: np.int64, fields.END: np.int64}), text)

    def _regions(self, regions: pd.DataFrame, what: str) -> None:
        from xmodal.data.intervals import on_one_line, overlap_pairs

        if self.modality.peaks is None:
            raise InputRefused(
                f"{what}: the checkpoint does not know where features of {self.modality.name} lie, so a region chooses none",
                where=OPTION,
                do=f"give names, such as {', '.join(self.modality.features[:2])}",
            )
        query, peaks = on_one_line(regions, self.modality.peaks)
        hits = overlap_pairs(query, peaks)
        self.found |= set(map(int, hits[1]))
        without = len(regions) - len(np.unique(hits[0]))
        if without:
            log.warning("%s: %d of %d regions overlap no peak of the checkpoint", what, without, len(regions))

    def _file(self, path: Path) -> None:
        lines = [s for s in _lines(path) if s.strip() and not s.startswith(HEADS)]
        if not lines:
            raise InputRefused("no names and no regions are in it", where=f"{OPTION} {path}", do="give another file")
        if _interval(lines[0]):
            from xmodal.data.peak_sets import read_peaks

            self._regions(read_peaks(path).table.reset_index(drop=True), str(path))
            return
        for line in lines:
            self._name(line.split("\t")[0].strip())


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):  # longer than a name of a file can be
        return False


def _lines(path: Path) -> list[str]:
    try:
        content = path.read_bytes()
        return (gzip.decompress(content) if content.startswith(GZIP) else content).decode("utf-8-sig").splitlines()
    except (UnicodeDecodeError, gzip.BadGzipFile, EOFError, zlib.error):
        raise InputRefused(
            "this is no text", where=f"{OPTION} {path}", do="give a BED file, or a name in each line"
        ) from None


def _interval(line: str) -> bool:
    parts = line.split("\t")
    return len(parts) >= 3 and parts[1].strip().isdigit() and parts[2].strip().isdigit()


def _unversioned(gene: str) -> str:
    return gene.split(".")[0] if gene.startswith("ENS") else gene


def _near(names: list[str], modality: Modality) -> str:
    """What could have been meant."""
    from difflib import get_close_matches

    lowered = {f.lower(): f for f in modality.features}
    close = [lowered[n] for name in names for n in get_close_matches(name.lower(), lowered, 1)]
    some = list(dict.fromkeys(close)) or list(modality.features[:3])
    return f"give {'near names such as' if close else 'names such as'} {', '.join(some)}"
