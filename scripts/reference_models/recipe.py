"""A recipe: where the data are, how the model is made from them, what it must reach, and what its card says."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from xmodal.errors import InputRefused

HOME = Path(__file__).resolve().parents[2] / "assets" / "models"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
Identifier = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=80)]
# One line without tabs: it goes into a tab-separated table and into headings.
Line = Annotated[str, StringConstraints(pattern=r"^[^\t\r\n]+$", strip_whitespace=True, max_length=200)]
Control = Literal["mean", "depth", "linear"]


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(Part):
    """A file of measurements: an address or a path (relative to the recipe), checked where a sum is stated."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=120)]
    url: str | None = None
    path: str | None = None
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = None
    md5: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")] | None = None

    @model_validator(mode="after")
    def _one_place(self) -> Source:
        if (self.url is None) == (self.path is None):
            raise ValueError("give either url or path")
        if self.url is not None:
            parts = urlsplit(self.url)
            if parts.scheme not in ("https", "http", "file"):
                raise ValueError("url must begin with https://, http:// or file://")
            if parts.scheme == "http" and parts.hostname not in LOOPBACK and self.sha256 is None:
                raise ValueError("a url without encryption (http://) needs a sha256")
        return self


class Bound(Part):
    """What one score must reach: numbers, and which controls it must beat."""

    at_least: float | None = None
    at_most: float | None = None
    beats: tuple[Control, ...] = ()


class Data(Part):
    """What the card says of the data."""

    title: Line
    address: str
    licence: Line
    attribution: str
    species: Line
    tissue: Line
    assay: Line


class Recipe(Part):
    """See assets/models; the options are those of the commands, in which {sources} and {simulated} are folders."""

    id: Identifier
    title: Line
    summary: str
    run_by_us: bool
    seed: int = Field(ge=0)
    sources: tuple[Source, ...] = ()
    simulate: tuple[str, ...] = ()
    prepare: tuple[str, ...]
    train: tuple[str, ...] = ()
    directions: tuple[Annotated[str, StringConstraints(pattern=r"^\w+:\w+$")], ...] = Field(min_length=1)
    evaluate: tuple[str, ...] = ()
    expected: dict[str, dict[str, Bound]] = Field(min_length=1)
    data: Data
    limits: tuple[str, ...] = ()
    not_for: tuple[str, ...] = Field(min_length=1)
    cite: tuple[str, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _fits_together(self) -> Recipe:
        if not self.sources and not self.simulate:
            raise ValueError("give sources or simulate")
        targets = [direction.partition(":")[2] for direction in self.directions]
        if len(set(targets)) < len(targets):
            raise ValueError("directions: each target once")
        if unknown := set(self.expected) - set(targets):
            raise ValueError(f"expected: {', '.join(sorted(unknown))} is no target of directions")
        return self


def names() -> list[str]:
    """The recipes that come with xmodal."""
    return sorted(path.stem for path in HOME.glob("*.yml"))


def find(what: str) -> Path:
    """The file of a recipe that is given by its name or as a file."""
    path = HOME / f"{what}.yml"
    if "/" not in what and path.is_file():
        return path
    if what.endswith((".yml", ".yaml")) and Path(what).is_file():
        return Path(what)
    raise InputRefused(
        "there is no such recipe", where=what, do=f"give one of {', '.join(names())}, or a file NAME.yml"
    )


def read(path: Path) -> Recipe:
    """The checked recipe; refused with the first thing that is wrong in it."""
    try:
        return Recipe.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputRefused(f"not readable as YAML ({str(error).splitlines()[0]})", where=str(path)) from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise InputRefused(f"{place}: {first['msg']}".lstrip(": "), where=str(path), do="mend the recipe") from None
