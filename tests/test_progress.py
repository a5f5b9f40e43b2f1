"""Progress: a bar on a terminal, lines in a log, nothing where quiet was asked for; stdout is for results."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from pathlib import Path

import pytest

from conftest import XMODAL, run_xmodal
from xmodal import progress

TRAIN = ("--model", "crossmp", "--set", "epochs=3", "--set", "batch_size=64", "--threads", "1", "--overwrite")
EPOCH = re.compile(r"xmodal: epoch (\d)/3  train \d.*valid \d.*rate \S+  [\d,]+ cells/s  \d+:\d\d left at most")


def on_terminal(*args: object) -> tuple[int, str, str]:
    """Exit code, stdout and what a terminal shows of stderr."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 160, 0, 0))
    started = subprocess.Popen([XMODAL, *map(str, args)], stdout=subprocess.PIPE, stderr=theirs, text=True)
    os.close(theirs)
    shown = b""
    while True:
        try:
            found = os.read(ours, 4096)
        except OSError:  # how Linux says that the other side has gone
            break
        if not found:
            break
        shown += found
    os.close(ours)
    out, _ = started.communicate()
    return started.returncode, out, shown.decode()


def test_a_log_has_one_line_an_epoch_and_no_bar(prepared: Path, tmp_path: Path) -> None:
    done = run_xmodal("train", prepared, "--output-dir", tmp_path / "m", *TRAIN)
    assert done.code == 0, done.err
    assert [found[1] for line in done.err.splitlines() if (found := EPOCH.match(line))] == ["1", "2", "3"], done.err
    assert "\r" not in done.err and "|" not in done.err
    assert "epoch" not in done.out.replace("best epoch", "") and len(done.out.splitlines()) == 1


def test_a_terminal_has_a_bar_and_its_log_lines_stay_whole(prepared: Path, tmp_path: Path) -> None:
    code, out, shown = on_terminal("train", prepared, "--output-dir", tmp_path / "m", *TRAIN)
    assert code == 0, shown
    last = shown.split("\r")
    assert any(re.search(r"epoch 3/3 .*\|.* left, train \d.*, valid \d.*, best \d", part) for part in last), shown
    assert "cells/s" in shown and not EPOCH.search(shown)  # the bar says what the lines would
    assert "xmodal: crossmp: " in shown, "other lines are as in a log"
    assert len(out.splitlines()) == 1 and "|" not in out


def test_quiet_has_neither(prepared: Path, tmp_path: Path) -> None:
    code, out, shown = on_terminal("train", prepared, "--output-dir", tmp_path / "m", *TRAIN, "--quiet")
    assert code == 0 and len(out.splitlines()) == 1
    assert "|" not in shown and "epoch" not in shown and all("warning" in x for x in shown.splitlines() if x), shown


def test_prediction_has_a_bar_on_a_terminal_only(prepared: Path, tmp_path: Path) -> None:
    run_xmodal("train", prepared, "--output-dir", tmp_path / "m", "--model", "linear")
    args = ("predict", prepared, "--checkpoint", tmp_path / "m" / "model.safetensors", "--from", "rna", "--to", "atac")
    code, _, shown = on_terminal(*args, "--output", tmp_path / "a.h5ad")
    assert code == 0 and re.search(r"predicting .*\|.* cells", shown), shown
    done = run_xmodal(*args, "--output", tmp_path / "b.h5ad")
    assert done.code == 0 and "predicting" not in done.err, done.err
    assert (tmp_path / "a.h5ad").read_bytes() == (tmp_path / "b.h5ad").read_bytes()


@pytest.mark.parametrize(("seconds", "words"), [(0.4, "0:00"), (59.6, "1:00"), (3599, "59:59"), (3600, "1:00:00")])
def test_clock(seconds: float, words: str) -> None:
    assert progress.clock(seconds) == words
