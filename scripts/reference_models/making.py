"""From a recipe to a described, registered model.

A model is made in ``.NAME.making`` beside its place, which gets its name only when everything is there; a run that was
stopped goes on in it.  A model that misses its expected scores ends in ``NAME.missed`` and is not registered.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reference_models import card, expected, fetching, table
from reference_models.recipe import Recipe, Source, read
from xmodal import __version__, describe, fields, outputs, provenance
from xmodal.errors import InputRefused, XmodalError

log = logging.getLogger(__name__)
MADE = "made.json"  # of what, by what; written last
PREPARED = "prepared.h5mu"


class StepFailed(XmodalError):
    """A command of xmodal ended with an error, which it has said itself."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.exit_code = code


@dataclass(frozen=True)
class Job:
    """One recipe, the folder ``out`` of all models, the table and the options of every command."""

    file: Path
    recipe: Recipe
    out: Path
    loc: Path
    common: tuple[str, ...] = ()
    files: dict[str, Path] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.file.stem

    @property
    def place(self) -> Path:
        return self.out / self.name

    @property
    def missed(self) -> Path:
        return self.out / f"{self.name}.missed"

    @property
    def work(self) -> Path:
        return self.out / f".{self.name}.making"

    def key(self) -> str:
        """What decides the weights and scores: another key, another model.  Words of the card and bounds do not."""
        made_of = self.recipe.model_dump(include={"seed", "simulate", "prepare", "train", "directions", "evaluate"})
        made_of["version"] = __version__
        made_of["sources"] = [self._identity(source) for source in self.recipe.sources]
        return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()

    def _identity(self, source: Source) -> Any:
        """Name and content of a source, wherever it lies; an address where no content is known beforehand."""
        here = fetching.local_path(source, self.file)
        if here is not None:
            return [source.name, provenance.sha256(fetching.fetch(source, self.file, self.out))]
        return [source.name, source.sha256] if source.sha256 else source.model_dump()


def make(file: Path, out: Path, loc: Path, common: tuple[str, ...] = ()) -> Path:
    """The folder of the finished, registered model; raises :class:`InputRefused` where it misses its scores."""
    job = Job(file, read(file), out.resolve(), loc, common)
    out.mkdir(parents=True, exist_ok=True)
    with _alone(job):
        key = job.key()
        finished = _finished(job, key)
        if finished is None:
            _run(job, key)
            finished = job.work
        else:
            log.info("%s: made already, of the same data by the same settings and version", job.name)
        return _judge(job, finished)


def _finished(job: Job, key: str) -> Path | None:
    """The folder of an earlier run of the same key, whose model is what it was."""
    aside = job.out / f".{job.name}.old"
    if aside.is_dir() and not job.place.exists():  # killed between two renames
        os.replace(aside, job.place)
    for folder in (job.place, job.missed, job.work):
        made = folder / MADE
        if made.is_file() and (about := json.loads(made.read_text(encoding="utf-8")))["key"] == key:
            model = folder / fields.CHECKPOINT_FILE
            if model.is_file() and provenance.sha256(model) == about["sha256"]:
                return folder
    return None


def _run(job: Job, key: str) -> None:
    """All commands; what an earlier, stopped run of the same key has finished is kept."""
    sources = {s.name: fetching.fetch(s, job.file, job.out / "sources") for s in job.recipe.sources}
    work, mark = job.work, job.work / "key"
    if not (mark.is_file() and mark.read_text(encoding="utf-8") == key):
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        outputs.write_text(mark, key)
    _link(work / "sources", sources)
    _measurements(job)
    training, model = work / "training", work / fields.CHECKPOINT_FILE
    if not model.is_file():
        # It goes on from the state of a stopped training by itself.
        if not (training / fields.CHECKPOINT_FILE).is_file():
            _xmodal(job, "train", str(work / PREPARED), *job.recipe.train, "--output-dir", str(training), "--overwrite")
        os.replace(training / fields.CHECKPOINT_FILE, model)
    predictions = [option for direction in job.recipe.directions for option in _predicted(job, direction)]
    evaluation = ["--checkpoint", str(model), "--output-dir", str(work / "evaluation"), "--overwrite"]
    _xmodal(job, "evaluate", str(work / PREPARED), *predictions, *job.recipe.evaluate, *evaluation)
    report = ["--output", str(work / "report.html"), "--title", job.recipe.title, "--overwrite"]
    parts = [
        "--training",
        str(training),
        "--evaluation",
        str(work / "evaluation"),
        "--prepare",
        str(work / "prepared.json"),
    ]
    _xmodal(job, "report", *parts, *report)
    about: dict[str, Any] = {"key": key, "sha256": provenance.sha256(model), "version": __version__, "recipe": job.name}
    about["sources"] = {name: fetching.hashes(path) for name, path in sources.items()}
    for spare in (work / "sources", work / "simulated", work / "predictions"):
        shutil.rmtree(spare, ignore_errors=True)
    for file in (work / PREPARED, mark):
        file.unlink(missing_ok=True)
    outputs.write_json(work / MADE, about, overwrite=True)


def _link(folder: Path, sources: dict[str, Path]) -> None:
    """The sources under their names, wherever they lie."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, path in sources.items():
        (folder / name).symlink_to(path)


def _measurements(job: Job) -> None:
    """The prepared file, from the sources or simulated cells."""
    work = job.work
    if (work / PREPARED).is_file() and (work / "prepared.json").is_file():
        return
    if job.recipe.simulate:
        _xmodal(job, "simulate", *job.recipe.simulate, "--output-dir", str(work / "simulated"), "--overwrite")
    folders = {"{sources}": str(work / "sources"), "{simulated}": str(work / "simulated")}
    options = list(job.recipe.prepare)
    for mark, folder in folders.items():
        options = [option.replace(mark, folder) for option in options]
    written = ["--output", str(work / PREPARED), "--summary", str(work / "prepared.json"), "--overwrite"]
    _xmodal(job, "prepare", *options, *written)


def _predicted(job: Job, direction: str) -> list[str]:
    """Options of evaluate for the prediction of one direction, which is made where it is not there."""
    source, _, target = direction.partition(":")
    file = job.work / "predictions" / f"{target}.h5ad"
    if not file.is_file():
        file.parent.mkdir(exist_ok=True)
        which = ["--from", source, "--to", target, "--split", "test"]
        model = ["--checkpoint", str(job.work / fields.CHECKPOINT_FILE), "--output", str(file)]
        _xmodal(job, "predict", str(job.work / PREPARED), *which, *model)
    return ["--prediction", f"{target}={file}"]


def _xmodal(job: Job, command: str, *options: str) -> None:
    """Run the command line that users have; its words go to stderr, as stdout is for results."""
    log.info("%s: xmodal %s", job.name, command)
    line = ["xmodal", command, *options, "--seed", str(job.recipe.seed), *job.common]
    with subprocess.Popen(line, stdout=2, stdin=subprocess.DEVNULL) as process:
        try:
            code = process.wait()
        except BaseException:  # stopped: a training keeps its state
            process.terminate()
            process.wait()
            raise
    if code:
        code = code if code > 0 else 128 - code  # ended by a signal, as when memory ran out
        raise StepFailed(f"{job.name}: xmodal {command} ended with exit code {code}; it says why above", code)


def _judge(job: Job, folder: Path) -> Path:
    """Check the scores, write the card, put the folder in its place and register it, or refuse it."""
    scores = json.loads((folder / "evaluation" / fields.METRICS_FILE).read_text(encoding="utf-8"))
    lacking = expected.missed(job.recipe.expected, scores)
    card.write(folder, job.recipe, job.name, lacking)
    model = folder / fields.CHECKPOINT_FILE
    about: dict[str, Any] = describe.checkpoint(model)
    if lacking:
        _move(folder, job.missed)
        table.unregister(job.loc, job.recipe.id, about["sha256"])
        raise InputRefused(
            f"the model misses what it must reach and is not registered: {'; '.join(lacking)}",
            where=job.name,
            do=f"read {job.missed / 'report.html'}, then change training or data, or what the recipe expects",
        )
    _move(folder, job.place)
    shutil.rmtree(job.missed, ignore_errors=True)
    table.register(job.loc, table.row(job.recipe.id, job.recipe.title, about, job.place / fields.CHECKPOINT_FILE))
    return job.place


def _move(folder: Path, place: Path) -> None:
    """Give ``folder`` the name ``place``; what was there before stays until then."""
    if folder == place:
        return
    aside = place.with_name(f".{place.name}.old")
    shutil.rmtree(aside, ignore_errors=True)
    if place.exists():
        os.replace(place, aside)
    os.replace(folder, place)
    shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def _alone(job: Job) -> Iterator[None]:
    """Two runs must not make the same model in the same folder."""
    with (job.out / f".{job.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputRefused(
                "another run makes this model", where=str(job.place), do="wait for it, or give another --output-dir"
            ) from None
        yield
