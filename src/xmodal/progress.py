"""How far a long step is: a bar where somebody looks at a terminal, lines in a log everywhere else; never on stdout.

A log (Nextflow, Galaxy, a file, ``2> log``) gets the lines that the step logs by :func:`line`, no bar.  ``--quiet`` has neither.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar

Item = TypeVar("Item")
FORM = "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} {unit}, {rate_fmt}, {remaining} left{postfix}"
PACKAGE = "xmodal"


class Bar:
    """What a loop tells of itself; this one shows nothing."""

    def add(self, many: int) -> None:
        """So many more are done."""

    def say(self, what: str, facts: str = "") -> None:
        """What stands left of the bar, and what right of it."""


class Shown(Bar):
    """A bar of tqdm's."""

    def __init__(self, made: Any) -> None:
        self.made = made

    def add(self, many: int) -> None:
        self.made.update(many)

    def say(self, what: str, facts: str = "") -> None:
        self.made.set_description_str(what, refresh=False)
        self.made.set_postfix_str(facts, refresh=True)


@contextmanager
def bar(total: int, what: str, unit: str = "cells", done: int = 0) -> Iterator[Bar]:
    """A bar for ``total`` units of work, ``done`` of which are already; it goes when the work is over or fails."""
    if not total or not watched():
        yield Bar()
        return
    from tqdm import tqdm

    tqdm.monitor_interval = 0  # no thread that redraws: work here is in steps of less than a second
    tqdm.set_lock(threading.RLock())  # one process writes
    with tqdm(
        total=total,
        initial=done,
        desc=what,
        unit=f" {unit}",
        unit_scale=True,
        file=sys.stderr,
        leave=False,
        dynamic_ncols=True,
        bar_format=FORM.replace("{unit}", unit),
    ) as made:
        yield Shown(made)


def along(
    items: Iterable[Item], total: int, what: str, unit: str, size: Callable[[Item], int] | None = None
) -> Iterator[Item]:
    """``items`` as they are, each counted as ``size`` says (else as one) when the next is asked for; no lines in a log."""
    with bar(total, what, unit) as shown:
        for item in items:
            yield item
            shown.add(size(item) if size else 1)


def line(log: logging.Logger, text: str, *args: Any) -> None:
    """A line of the log that says no more than a bar does: beside one only with ``--verbose``."""
    log.log(logging.DEBUG if watched() else logging.INFO, text, *args)


def watched() -> bool:
    """Does somebody look: a terminal, and a user who did not ask for quiet."""
    if sys.stderr is None or not sys.stderr.isatty() or not logging.getLogger(PACKAGE).isEnabledFor(logging.INFO):
        return False
    return os.get_terminal_size(sys.stderr.fileno()).columns > 0  # some have no size, and tqdm shows nothing there


class Lines(logging.StreamHandler[Any]):
    """Log lines above a bar, which stays whole."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm = getattr(sys.modules.get("tqdm"), "tqdm", None)
        with tqdm.external_write_mode(file=self.stream) if tqdm else nullcontext():
            super().emit(record)


class Pace:
    """Cells a second since the last call, and how long what is left takes at the mean pace since the first."""

    def __init__(self) -> None:
        self.began = self.last = time.monotonic()
        self.rounds = 0

    def after(self, cells: int, rounds_left: int) -> str:
        """Of a round of ``cells`` that has just ended."""
        now = time.monotonic()
        took, self.last = max(now - self.last, 1e-9), now
        self.rounds += 1
        left = (now - self.began) / self.rounds * rounds_left
        return f"{cells / took:,.0f} cells/s  {clock(left)} left at most"


def clock(seconds: float) -> str:
    """``m:ss``, or ``h:mm:ss`` from an hour on."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
