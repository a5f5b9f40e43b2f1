"""The ``xmodal`` command.  Subcommands are imported when they are called, so ``--help`` and ``--version`` stay fast."""

from __future__ import annotations

import atexit
import importlib
import logging
import os
import re
import sys
from typing import Any

import click

from xmodal import __version__
from xmodal.commands import COMMANDS
from xmodal.errors import XmodalError


class LazyGroup(click.Group):
    """A group whose commands live in ``xmodal.cli.<name>`` as an object called ``command``."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [c.name for c in COMMANDS]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in {c.name for c in COMMANDS}:
            return None
        found: click.Command = importlib.import_module(f"xmodal.cli.{name}").command
        return found

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        from difflib import get_close_matches

        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            near = get_close_matches(args[0], self.list_commands(ctx), 1)
            if near:
                raise click.UsageError(f"{error.message} Did you mean '{near[0]}'?", ctx) from None
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(c.name, c.summary) for c in COMMANDS])


# What torch says where memory is not enough, and the system where a library cannot be loaded for that
NO_MEMORY = ("DefaultCPUAllocator: can't allocate memory", "failed to map segment", "Cannot allocate memory")


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="xmodal")
def cli() -> None:
    """Predict the single-cell modality that was not measured, and find out how far to trust it.

    Exit codes: 0 fine, 1 internal error, 2 usage, 3 input refused, 99 not applicable, 137 out of memory, 143 stopped
    by SIGTERM.
    """


def main() -> None:
    """Entry point: expected errors become one line on stderr and their exit code."""
    try:
        code = cli.main(standalone_mode=False)
        _leave(code if isinstance(code, int) else 0)
    except click.exceptions.Abort:
        _fail("stopped", 130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except XmodalError as error:
        _fail(str(error), error.exit_code, error.hearsay)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except (MemoryError, ImportError, RuntimeError) as error:
        if not (isinstance(error, MemoryError) or any(words in str(error) for words in NO_MEMORY)):
            raise
        _fail(out_of_memory(error), 137)
    except (PermissionError, FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        _fail(
            f"{error.filename}: {error.strerror}. What to do: give a path that can be read, or a folder that can be written",
            3,
        )
    except OSError as error:
        if error.errno in (28, 122):  # ENOSPC, EDQUOT
            _fail(f"{error.filename or 'output'}: no space left on the disk. What to do: free space and run again", 3)
        logging.getLogger("xmodal").debug("internal error", exc_info=True)
        raise


def _leave(code: int) -> None:
    """End at once: to take down torch's libraries one by one reads 130 MiB of them into memory first, and takes a second."""
    if "torch" not in sys.modules:
        sys.exit(code)
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


def out_of_memory(error: BaseException) -> str:
    """What to do about it; with the size that could not be had, where the error says one (torch: bytes; numpy: MiB or GiB)."""
    found = re.search(r"allocate (\d+) bytes|allocate ([\d.]+ [KMGT]iB)", str(error))
    size = "" if found is None else f": {found[2] or f'{int(found[1]) / 2**20:.0f} MiB'} more did not fit"
    return (
        f"out of memory{size}. What to do: give the job more memory; or train with smaller minibatches (--set batch_size=N) "
        "or a smaller model, predict fewer cells at once (--rows) or fewer features (--features), read cells from disk "
        "(--on-disk always)"
    )


def _fail(message: str, code: int, hearsay: bool = False) -> None:
    from xmodal import starting

    starting.wait_for_first(hearsay)
    click.echo(f"xmodal: error: {message}", err=True)
    if starting.asked():  # at once, so that torchrun ends the others before they say the same
        sys.stdout.flush()
        os._exit(code)
    sys.exit(code)
