"""``xmodal prepare``: one or many samples into one checked .h5mu with a split."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from xmodal.cli import options
from xmodal.data.prepare_settings import PrepareSettings
from xmodal.errors import UsageRefused
from xmodal.fields import ATAC, PROTEIN, RNA

if TYPE_CHECKING:
    from xmodal.data.samples import SampleFiles

log = logging.getLogger(__name__)
PATH = click.Path(path_type=Path)  # what is wrong with it is said by xmodal.data.io, with exit 3


@click.command("prepare", context_settings=options.HELP)
@click.option("--rna", type=PATH, help="RNA counts (h5ad).")
@click.option("--atac", type=PATH, help="ATAC counts, cells by peaks (h5ad).")
@click.option("--protein", type=PATH, help="Antibody counts (h5ad).")
@click.option(
    "--modality", "others", multiple=True, metavar="NAME=FILE", help="Any other modality: h5ad, or a table (CSV, TSV)."
)
@click.option("--h5", type=PATH, help="10x Multiome or CITE-seq .h5.")
@click.option("--h5mu", type=PATH, help="A MuData file.")
@click.option("--fragments", type=PATH, help="Fragments (.tsv.gz), counted over the peaks of --checkpoint or --peaks.")
@click.option("--samplesheet", type=PATH, help="CSV of samples: sample,role,rna,atac,protein,h5mu,h5,fragments.")
@click.option(
    "--role",
    type=click.Choice(["train", "predict"]),
    default="train",
    show_default=True,
    help="Which rows of the samplesheet.",
)
@click.option("--sample", default="sample", show_default=True, help="Name of the sample (without a samplesheet).")
@click.option("--output", type=options.WRITABLE, required=True, help="The .h5mu to write.")
@click.option("--summary", type=options.WRITABLE, help="Also write what was done as JSON.")
@options.from_settings(PrepareSettings)
@options.common
def command(
    settings: PrepareSettings, output: Path, summary: Path | None, seed: int, overwrite: bool, **given: Any
) -> None:
    """Bring one or many samples into one checked .h5mu with a split."""
    files = _files(given)
    if output.suffix != ".h5mu":
        raise UsageRefused(f"--output {output}: the name must end in .h5mu")
    from xmodal import outputs
    from xmodal.data import filling, preparation

    for path in [p for p in (output, summary) if p]:
        outputs.refuse_existing(path, overwrite)
        outputs.refuse_inputs(path, *(given for sample in files for given in sample.files.values()))
    mdata, facts = preparation.prepare(files, settings, seed)
    filling.write(mdata, output, overwrite)
    if summary:
        outputs.write_json(summary, facts, overwrite)
    log.info("%s", preparation.in_words(facts))


def _files(given: dict[str, Any]) -> list[SampleFiles]:
    from xmodal.data.samples import SampleFiles, read_samplesheet

    files = {name: given[name] for name in (RNA, ATAC, PROTEIN, "h5", "h5mu", "fragments") if given[name]}
    for pair in given["others"]:
        name, equals, path = pair.partition("=")
        if not equals or not name or not path:
            raise UsageRefused(f"--modality {pair}: give NAME=FILE")
        if name in files:
            raise UsageRefused(f"--modality {pair}: '{name}' is given twice")
        files[name] = Path(path)
    if bool(files) == bool(given["samplesheet"]):
        raise UsageRefused(
            "give either --samplesheet, or files of one sample "
            "(--rna, --atac, --protein, --modality, --h5, --h5mu, --fragments)"
        )
    if given["samplesheet"]:
        return read_samplesheet(given["samplesheet"], given["role"])
    return [SampleFiles(given["sample"], files)]
