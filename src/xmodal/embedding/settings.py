"""Options of ``xmodal embed`` and ``xmodal impute``, apart from the work so that ``--help`` needs no heavy import."""

from __future__ import annotations

import math

from pydantic import Field

from xmodal.data.new_cells_settings import NewCellsSettings
from xmodal.data.on_disk_settings import AUTO as AUTO_DISK
from xmodal.data.on_disk_settings import OPTION, Choice
from xmodal.errors import UsageRefused

AUTO = "auto"
MOST_RESOLUTION = 100.0  # far beyond it every cell is a cluster


class StreamedSettings(NewCellsSettings):
    """Options of commands that need not hold their cells in memory."""

    on_disk: Choice = Field(AUTO_DISK, description=OPTION)


class EmbedSettings(StreamedSettings):
    """Options of ``xmodal embed`` that are not files."""

    by_modality: bool = Field(
        False, description="Also embed each cell as if only one modality had been measured, for each modality."
    )
    neighbors: int = Field(15, ge=2, description="Neighbours of each cell in the graph of cells, itself among them.")
    resolution: str = Field(
        AUTO, description="Resolution of the Leiden clusters, a number (more: more clusters); auto: the most stable."
    )
    clusters: int | None = Field(
        None, ge=2, description="Clusters wanted, in place of a resolution; the closest number that there is."
    )
    graph_cells: int = Field(
        200_000,
        ge=100,
        description="Most cells in the graph, the UMAP and the clustering; of more, so many are drawn, and the others get "
        "cluster and place of the drawn ones nearest to them.",
    )
    label_key: str | None = Field(
        None, description="obs column with the cell types, for the picture and the table [default: found by its name]."
    )

    def given_resolution(self) -> float | None:
        """The resolution asked for; None where it is to be found.  Refuses what is neither, and two wishes at once."""
        if self.resolution == AUTO:
            return None
        if self.clusters is not None:
            raise UsageRefused("--resolution and --clusters exclude each other; leave one of them out")
        try:
            value = float(self.resolution)
        except ValueError:
            value = math.nan
        if not 0 < value <= MOST_RESOLUTION:
            raise UsageRefused(
                f"--resolution {self.resolution}: give {AUTO}, or a number above 0 and at most {MOST_RESOLUTION:g}"
            )
        return value


class ImputeSettings(StreamedSettings):
    """Options of ``xmodal impute`` that are not files."""

    modality: tuple[str, ...] = Field(
        (), description="A modality to impute; repeatable [default: all that file and checkpoint share]."
    )
