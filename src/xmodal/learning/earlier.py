"""The state that an earlier attempt at a training left behind.  No heavy import: an attempt may be killed while torch loads."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from xmodal import fields
from xmodal.outputs import replacing

log = logging.getLogger(__name__)


def take_over(earlier: Path, output_dir: Path) -> bool:
    """Copy the state in ``earlier`` (a folder, or the file) into ``output_dir``; whether there was one to take.

    Done before anything else, so that an attempt that is killed early still hands it on.  Whether it is of this very
    training shows later, when the cells are read.
    """
    state, own = (earlier / fields.STATE_FILE if earlier.is_dir() else earlier), output_dir / fields.STATE_FILE
    if own.exists():
        return False
    if not state.is_file():
        log.info("%s: no state of a stopped training; training from the start", earlier)
        return False
    with replacing(own) as temporary:
        shutil.copyfile(state, temporary)
    return True
