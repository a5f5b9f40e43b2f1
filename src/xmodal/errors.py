"""Errors that carry an exit code.  Every refusal says what is wrong, where, and what to do next.

Exit codes: 0 fine, 1 internal error, 2 usage, 3 input refused, 99 not applicable (never retried by a workflow).
"""

from __future__ import annotations


class XmodalError(Exception):
    """Base of all expected errors; ``exit_code`` is what the process ends with."""

    exit_code = 1
    hearsay = False  # is it about another process, which says itself what is wrong?


class InputRefused(XmodalError):
    """The input cannot be used as it is.  Written as ``WHERE: WHAT. DO.``

    >>> str(InputRefused("no cells are left", where="in.h5mu", do="lower --min-peaks"))
    'in.h5mu: no cells are left. What to do: lower --min-peaks'
    """

    exit_code = 3

    def __init__(self, what: str, *, where: str = "", do: str = "") -> None:
        self.what, self.where, self.do = what if what.endswith("...") else what.rstrip("."), where, do.rstrip(".")
        text = f"{where}: {self.what}" if where else self.what
        stop = "" if text.endswith(("?", "!", "...")) else "."
        super().__init__(f"{text}{stop} What to do: {self.do}" if do else text)

    def at(self, place: str) -> InputRefused:
        """The same refusal with ``place`` (a file) in front, where the message does not name it yet."""
        if place in str(self):
            return self
        return type(self)(self.what, where=f"{place}: {self.where}" if self.where else place, do=self.do)


class ModelRefused(InputRefused):
    """This model cannot be trained on these cells, or not with these settings; another might."""


class UsageRefused(XmodalError):
    """The options do not fit together; the message names the option."""

    exit_code = 2


class SettingRefused(UsageRefused):
    """A setting that the model does not have, or cannot have that value."""


class NotApplicable(XmodalError):
    """The model or command cannot do this at all; the message names what can."""

    exit_code = 99
