"""The project's models beside peers, in one run: same cells and features, several seeds, one scorer (`xmodal evaluate`).

    python benchmarks/peers.py [--install] [--set cortex,...] [--only METHOD,...] [--redo METHOD,...] [--seeds 3] [--threads 2]
    python benchmarks/peers.py --tables        only rebuild the tables and plots from what was measured

Peers are installed from the package index, each into its own environment under benchmarks/.peers (--install).  Results are
kept in benchmarks/results/peers.json with a digest of cells and split: what is there is not measured again, except by --redo.
A peer that cannot run is a row with its reason.  Methods, data sets and seeds: benchmarks/peers/methods.toml.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
from pathlib import Path
from typing import Any

import peer_methods
from common import HERE, between
from peer_methods import Cells, Failed, Method

RESULTS = HERE / "results" / "peers.json"
log = logging.getLogger("benchmark")
Found = dict[str, Any]


def load() -> Found:
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def store(found: Found) -> None:
    RESULTS.parent.mkdir(exist_ok=True)
    part = RESULTS.with_suffix(".tmp")
    part.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    part.replace(RESULTS)


def is_known(entry: dict[str, Any] | None, method: Method, digest: str) -> bool:
    """Was this measured on these cells with these settings?"""
    return bool(
        entry and "skipped" not in entry and entry["digest"] == digest and entry.get("settings", {}) == method.settings
    )


def measure(method: Method, cells: Cells, seed: int, threads: int) -> dict[str, Any]:
    """One run, or the reason there is none; nothing a method does stops the others."""
    with tempfile.TemporaryDirectory() as scratch:
        try:
            entry = peer_methods.run(method, cells, seed, threads, Path(scratch))
        except (Failed, OSError, ValueError, KeyError) as why:
            entry = {"skipped": str(why).replace(scratch, "").replace(str(cells.folder), "").replace(str(HERE), "")}
    return {**entry, "digest": cells.about["digest"]}


def run_set(name: str, about: dict[str, Any], methods: dict[str, Method], given: argparse.Namespace) -> None:
    """All wanted methods on one data set; the results file is written after each run."""
    wanted = {m: method for m, method in methods.items() if name in method.sets}
    with tempfile.TemporaryDirectory() as folder:
        try:
            cells = peer_methods.prepare(name, about, Path(folder))
        except Failed as why:
            log.warning("%s: skipped, because %s", name, why)
            return
        runs = [(m, s) for s in range(given.seeds) for m in wanted if s < wanted[m].sets[name]]
        for method, seed in runs:
            found = load()  # read anew: another run may have written
            rows = found.setdefault(name, {}).setdefault("methods", {}).setdefault(method, {})
            if method not in given.redo and is_known(rows.get(str(seed)), wanted[method], cells.about["digest"]):
                continue
            entry = measure(wanted[method], cells, seed, given.threads)
            found = load()
            found.setdefault(name, {}).setdefault("methods", {}).setdefault(method, {})[str(seed)] = entry
            found[name]["about"] = cells.about
            store(found)
            log.info("%s %s seed %d: %s", name, method, seed, entry.get("skipped") or entry["targets"])


def main(given: argparse.Namespace) -> None:
    sets, methods = peer_methods.read()
    chosen = {m: v for m, v in methods.items() if not given.only or m in given.only}
    if unknown := sorted({*given.only, *given.redo} - methods.keys()) + sorted(set(given.set) - sets.keys()):
        raise SystemExit(f"'{unknown[0]}' is not in benchmarks/peers/methods.toml ({', '.join([*methods, *sets])})")
    if not given.tables:
        if given.install:
            for environment in sorted({m.env for m in chosen.values() if m.env}):
                peer_methods.install(environment)
        for name in given.set or sets:
            run_set(name, sets[name], chosen, given)
    import peer_tables

    found = load()
    between(HERE / "RESULTS.md", "peers", peer_tables.markdown(found, sets, methods))
    if short := peer_tables.readme(found, methods):
        between(HERE.parent / "README.md", "readme_scores", short)
    peer_tables.plots(found, sets, methods, RESULTS.parent)


def names(text: str) -> list[str]:
    return [n for n in text.split(",") if n]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", type=names, default=[], metavar="SET,...", help="only these data sets")
    parser.add_argument("--only", type=names, default=[], metavar="METHOD,...", help="only these methods")
    parser.add_argument("--redo", type=names, default=[], metavar="METHOD,...", help="measure these again")
    parser.add_argument("--seeds", type=int, default=3, help="at most so many seeds of each")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--install", action="store_true", help="make the environments that are missing")
    parser.add_argument("--tables", action="store_true", help="only rebuild tables and plots")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main(parser.parse_args())
