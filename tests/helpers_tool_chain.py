"""How the commands of a Galaxy tool's ``<command>`` hang together, and what its tokens @DEVICE@ and @NAMES@ do.

Text is judged, not run, but for @DEVICE@: that is run by bash with the environments of :data:`DEVICES`.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from functools import cache

# XMODAL_DEVICE and GPU_AVAILABLE of a job, None where not set -> XMODAL_DEVICE of the command.
DEVICES: dict[tuple[str | None, str | None], str] = {
    (None, None): "",
    (None, ""): "",
    (None, "1"): "cuda",
    (None, "true"): "cuda",
    (None, "True"): "cuda",
    (None, "0"): "cpu",
    (None, "false"): "cpu",
    (None, "False"): "cpu",
    (None, "2"): "",
    ("", "1"): "cuda",
    ("cpu", "1"): "cpu",
    ("cuda", "0"): "cuda",
    ("auto", "1"): "auto",
}
DEVICE = re.compile(r'\bcase "\\\$\{XMODAL_DEVICE[^&]*\besac\s*&&')
# The only places in which something other than && joins two commands: @DEVICE@, and the end of a job that cannot be done.
INTENDED = ((DEVICE, ""), (re.compile(r">&2 && exit [23];"), ">&2 &&"))
KNOWN = "xmodal|ln|mkdir|mv|echo"
FIRST = re.compile(rf"(?:{KNOWN}) ")
LATER = re.compile(rf"\n\s*((?:{KNOWN}) \S+)")
JOINED = re.compile(r";|\|\|?|(?<![&>])&(?!&)|\$\(|`")
IN_A_VALUE = re.compile(r";|`|&&|\|\||\$\(")
DEF = re.compile(r"#\s*def\b([\s\S]*?)#\s*end def")
HARMLESS = r"harmless($name) #echo re.sub('[^A-Za-z0-9_.]+', '_', str($name)).strip('_.') or 'cells'#"


def chain(shell: str) -> Iterator[str]:
    """What is wrong with the chain ``shell`` (directives of Cheetah are gone): a failure must end the job, as && does."""
    for place, instead in INTENDED:
        shell = place.sub(instead, shell)
    shell = re.sub(r"'[^']*'", "''", shell)
    for found in JOINED.finditer(shell):
        before = " ".join(shell[: found.start()].split()[-3:])
        yield f"{found[0]} stands behind {before!r}: commands are joined by && only"
    for part in shell.split("&&"):
        if not part.strip():
            yield "&& stands where nothing follows or nothing went before"
        elif not FIRST.match(part.strip()):
            yield f"{part.split()[0]} is none of the commands {KNOWN}"
        for second in LATER.findall("\n".join(["", part.strip()]))[1:]:
            yield f"no && before {second}"


def values(directives: Iterator[str]) -> Iterator[str]:
    """The same in what #set and #silent put into variables, which the shell gets later."""
    for line in directives:
        if re.match(r"#\s*(set|silent|echo)\b", line) and (found := IN_A_VALUE.search(line)):
            yield f"{found[0]} stands in {line!r}: commands are joined by && only"


def definitions(command: str) -> Iterator[str]:
    """The body of $harmless is the known one (any other function is not judged)."""
    yield from (f"another function than the known $harmless: {f}" for f in _bodies(command) if f != HARMLESS)


def _bodies(command: str) -> list[str]:
    return [" ".join(body.split()) for body in DEF.findall(command)]


def device(command: str) -> Iterator[str]:
    """@DEVICE@ stands before the first call of xmodal and does what :data:`DEVICES` says."""
    found = DEVICE.search(command)
    if found is None or found.start() > command.index("xmodal "):
        yield "@DEVICE@ does not stand before the first call of xmodal"
        return
    for given, right in DEVICES.items():
        if (got := chosen(found[0], *given)) != right:
            told = dict(zip(("XMODAL_DEVICE", "GPU_AVAILABLE"), given, strict=True))
            yield f"@DEVICE@ makes {got!r} of {told}, not {right!r}"


@cache
def chosen(token: str, device: str | None, gpu: str | None, *options: str) -> str:
    """XMODAL_DEVICE of a command after ``token``; Cheetah writes \\$ as $.  Says of a failing token what bash says."""
    told = {"XMODAL_DEVICE": device, "GPU_AVAILABLE": gpu}
    env = {"PATH": os.environ["PATH"]} | {name: value for name, value in told.items() if value is not None}
    script = token.replace("\\$", "$") + " bash -c 'printf %s \"${XMODAL_DEVICE:-}\"'"
    command = ["bash", *options, "-c", script]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout if done.returncode == 0 else f"exit {done.returncode}: {done.stderr}"
