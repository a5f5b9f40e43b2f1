"""CPU and GPU side by side: `python benchmarks/gpu.py [--write] [--cells N]`.

Simulated cells of the shape of a multiome (3,000 genes, 30,000 peaks) are trained on and predicted, on the CPU and on the GPU,
whole commands in processes of their own.  How busy the GPU was, and how much of its memory was taken, is asked of `nvidia-smi`
all the time while a command runs (of all processes: nobody else should use it).  Prints a Markdown table;
``--write`` puts it into RESULTS.md.  Where there is no GPU it says "skipped, because ..." and ends with 0.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

import h5py
from common import XMODAL, between, xmodal

CELLS, GENES, PEAKS = 8_000, 3_000, 30_000
MODELS = {
    "linear": (),
    "auto": (),
    "crossmp": ("--set", "epochs=20", "--set", "patience=20"),
}
QUERY = ("--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader,nounits")
PAUSE = 0.2  # seconds between two questions
NONE = "-"


class Sampling:
    """Asks a command for a line ``percent, MiB`` again and again until this block ends; an empty command is not asked."""

    def __init__(self, command: tuple[str, ...]) -> None:
        self.command = command
        self.lines: list[tuple[float | None, float | None]] = []
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._ask, daemon=True)

    def __enter__(self) -> Self:
        if self.command:
            self.thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.over.set()
        if self.command:
            self.thread.join()

    def _ask(self) -> None:
        while not self.over.is_set():
            try:
                done = subprocess.run(self.command, capture_output=True, text=True, check=True, timeout=30)
            except (OSError, subprocess.SubprocessError):
                return
            busy, _, memory = done.stdout.strip().partition(",")
            self.lines.append((_number(busy), _number(memory)))
            self.over.wait(PAUSE)

    def wait_for(self, lines: int, seconds: float = 20) -> None:
        """Until so many lines were read."""
        until = time.monotonic() + seconds
        while len(self.lines) < lines and time.monotonic() < until:
            time.sleep(0.01)

    def busy(self) -> tuple[float, float] | None:
        """Mean and highest share of the time in which the GPU computed, percent."""
        found = [busy for busy, _ in self.lines if busy is not None]
        return (sum(found) / len(found), max(found)) if found else None

    def most_mib(self) -> float | None:
        return max((memory for _, memory in self.lines if memory is not None), default=None)


def _number(text: str) -> float | None:
    """A number, or None for `[N/A]` (a GPU in parts, MIG, has no utilisation)."""
    try:
        return float(text)
    except ValueError:
        return None


@dataclass(frozen=True)
class Row:
    """One command on one device."""

    model: str
    step: str
    device: str
    cells: int
    seconds: float
    busy: tuple[float, float] | None
    most_mib: float | None


def measured(cells: Path, folder: Path, devices: tuple[str, ...], ask: tuple[str, ...] = ()) -> list[Row]:
    """Train and predict with every model on every device, in turns.

    ``cells``: a prepared file; ``ask``: the command that tells how busy the GPU is, and its memory.
    """
    with h5py.File(cells) as handle:
        count = len(handle["obs"][handle["obs"].attrs["_index"]])
    rows = []
    for model, settings in MODELS.items():
        for device in devices:
            out = folder / f"{model}_{device}"
            told = ("--device", device, "--overwrite", "--quiet")
            train = ("train", cells, "--model", model, *settings, "--output-dir", out, *told)
            # without the intervals, which are computed on the CPU
            predict = ("predict", cells, "--from", "rna", "--to", "atac", "--checkpoint", out / "model.safetensors")
            predict = (*predict, "--interval", 0, "--output", folder / "predicted.h5ad", *told)
            for step, command in (("train", train), ("predict", predict)):
                rows.append(_timed(Row(model, step, device, count, 0.0, None, None), command, ask))
                sys.stderr.write(table(rows[-1:]).splitlines()[-1] + "\n")
    return rows


def _timed(row: Row, command: tuple[object, ...], ask: tuple[str, ...]) -> Row:
    with Sampling(ask if row.device == "cuda" else ()) as samples:
        began = time.perf_counter()
        subprocess.run([XMODAL, *map(str, command)], check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - began
    return replace(row, seconds=seconds, busy=samples.busy(), most_mib=samples.most_mib())


def table(rows: list[Row]) -> str:
    """The rows as Markdown, each beside the CPU's time for the same."""
    cpu = {(r.model, r.step): r.seconds for r in rows if r.device == "cpu"}
    lines = [
        "| model | step | device | cells | seconds | times as fast as the CPU | GPU busy, mean (most) % | GPU memory MiB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        faster = f"{cpu[r.model, r.step] / r.seconds:.2f}" if (r.model, r.step) in cpu else NONE
        busy = f"{r.busy[0]:.0f} ({r.busy[1]:.0f})" if r.busy else NONE
        memory = f"{r.most_mib:.0f}" if r.most_mib is not None else NONE
        lines.append(
            f"| {r.model} | {r.step} | {r.device} | {r.cells:,} | {r.seconds:.1f} | {faster} | {busy} | {memory} |"
        )
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Measure and print; returns the exit code."""
    import torch

    from xmodal.devices import unusable

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="Put the table into RESULTS.md.")
    parser.add_argument("--cells", type=int, default=CELLS)
    asked = parser.parse_args(arguments)
    if (why := unusable()) is not None:
        sys.stdout.write(f"skipped, because {why.cause} ({why})\n")
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        size = ("--cells", asked.cells, "--genes", GENES, "--peaks", PEAKS, "--no-rates")
        xmodal("simulate", "--output-dir", folder / "sim", *size)
        xmodal("prepare", "--h5mu", folder / "sim/paired.h5mu", "--output", folder / "cells.h5mu")
        ask = ("nvidia-smi", f"--id=GPU-{torch.cuda.get_device_properties(0).uuid}", *QUERY)
        rows = measured(folder / "cells.h5mu", folder, ("cpu", "cuda"), ask)
    text = f"{torch.cuda.get_device_name()}, torch {torch.__version__}\n\n{table(rows)}"
    sys.stdout.write(text + "\n")
    if asked.write:
        between(Path(__file__).with_name("RESULTS.md"), "gpu", text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
