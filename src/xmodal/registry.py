"""Model names to classes, through the entry-point group ``xmodal.models``; built-in models come the same way."""

from __future__ import annotations

from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

from xmodal.errors import UsageRefused, XmodalError

if TYPE_CHECKING:
    from xmodal.models.base import CrossModalModel

GROUP = "xmodal.models"


def names() -> list[str]:
    """All registered model names, sorted."""
    return sorted(_entries())


def get(name: str) -> type[CrossModalModel]:
    """The class registered as ``name``; a usage error names near names where there is none."""
    entries = _entries()
    if name not in entries:
        near = get_close_matches(name, entries, 1)
        hint = f" Did you mean '{near[0]}'?" if near else f" Known: {', '.join(sorted(entries))}."
        raise UsageRefused(f"--model: there is no model '{name}'.{hint}")
    found: type[CrossModalModel] = entries[name].load()
    if found.name != name:
        raise XmodalError(
            f"the model registered as '{name}' calls itself '{found.name}'; fix its entry point or its name"
        )
    return found


def _entries() -> dict[str, EntryPoint]:
    entries: dict[str, EntryPoint] = {}
    for entry in entry_points(group=GROUP):
        if entry.name in entries and entries[entry.name].value != entry.value:
            raise XmodalError(
                f"two installed packages register a model '{entry.name}' ({entries[entry.name].value}, {entry.value}); "
                "uninstall one"
            )
        entries[entry.name] = entry
    return entries
