"""Whether counts stay in their file, apart from the work so that ``--help`` needs no heavy import."""

from __future__ import annotations

from typing import Final, Literal

Choice = Literal["auto", "always", "never"]
AUTO: Final = "auto"
ALWAYS: Final = "always"
NEVER: Final = "never"
CHOICES = (AUTO, ALWAYS, NEVER)
SHARE = 0.25  # of the free memory: cells are copied as they are sorted out, and a model needs room too
OPTION = (
    "Leave the counts in the file and read them as they are needed; auto: where they would take more than "
    f"{SHARE:.0%} of the free memory. The result is the same."
)
