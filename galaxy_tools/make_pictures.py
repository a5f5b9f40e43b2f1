"""Writes pictures.xml, the pictures in the tools' help, anew; after `make models MODELS=demo`.

They stand in the help as data, since a picture beside a tool is found by Galaxy only where the tool came from a Tool Shed.
"""

from __future__ import annotations

import base64
import io
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
from portal import example  # noqa: E402

MADE = HERE.parent / "build" / "models"
WIDTH, COLOURS = 580, 64  # as wide as the middle of a common screen


def data(path: Path) -> str:
    """A picture, made small, as the address of an image."""
    picture = Image.open(path).convert("RGB")
    height = round(picture.height * WIDTH / picture.width)
    small = picture.resize((WIDTH, height), Image.Resampling.LANCZOS).quantize(COLOURS, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    small.save(buffer, "png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def run(command: str, *arguments: object) -> None:
    """``xmodal COMMAND ARGUMENTS``."""
    subprocess.run([Path(sys.executable).parent / "xmodal", command, *map(str, arguments)], check=True)


def predicted(folder: Path, model: Path) -> dict[str, Path]:
    """The pictures of predict, train and evaluate."""
    cells = example.example(folder, MADE / "xmodal_models.loc").cells
    made = ["--checkpoint", model, "--output", folder / "p.h5ad", "--overview", folder / "overview"]
    run("predict", cells, "--to", "atac", *made)
    given = ["--training", MADE / "demo" / "training", "--evaluation", MADE / "demo" / "evaluation"]
    run("report", *given, "--output", folder / "r.html", "--plots", folder / "plots")
    return {
        "PREDICT": folder / "overview" / "prediction.png",
        "TRAIN": folder / "plots" / "learning-training.png",
        "EVALUATE": folder / "plots" / "scores-evaluation-atac.png",
    }


def together(folder: Path, model: Path) -> dict[str, Path]:
    """The pictures of embed, impute and markers: all cells of the demonstration."""
    embedded, imputed = folder / "embedded.h5mu", folder / "imputed.h5mu"
    made = ["--checkpoint", model, "--output"]
    run("embed", folder / "simulated" / "paired.h5mu", *made, embedded, "--clusters", 8, "--overview", folder / "seen")
    run("impute", embedded, *made, imputed)
    run("markers", imputed, "--top", 2, "--output-dir", folder / "markers")
    denoised(imputed, folder / "imputed.png")
    return {
        "EMBED": folder / "seen" / "embedding.png",
        "IMPUTE": folder / "imputed.png",
        "MARKERS": folder / "markers" / "markers_rna.png",
    }


def denoised(imputed: Path, picture: Path) -> None:
    """The gene that marks a cluster best, in the map: as measured (log1p of counts per 10,000), and denoised."""
    import mudata
    import numpy as np
    from matplotlib import pyplot as plt

    from xmodal import fields

    cells = mudata.read_h5mu(imputed)
    rna = cells.mod["rna"]
    counts = np.asarray(rna.X.todense(), dtype=float)
    measured = np.log1p(1e4 * counts / np.maximum(counts.sum(1, keepdims=True), 1))
    values = np.asarray(rna.layers[fields.IMPUTED])
    gene = int(np.argmax(values.std(0)))
    places = cells.obsm[fields.UMAP]
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for axis, value, title in zip(axes, (measured, values), ("as measured", "denoised"), strict=True):
        dots = axis.scatter(*places.T, c=value[:, gene], s=3, cmap="viridis", linewidths=0)
        axis.set(title=f"{rna.var_names[gene]}, {title}", xticks=[], yticks=[], xlabel="UMAP 1", ylabel="UMAP 2")
        figure.colorbar(dots, ax=axis, label="log1p CP10k")
    figure.savefig(picture, dpi=130)


def main() -> None:
    with tempfile.TemporaryDirectory() as work:
        folder, model = Path(work), MADE / "demo" / "model.safetensors"
        pictures = predicted(folder, model) | together(folder, model)
        tokens = [f'    <token name="@PICTURE_{name}@">{data(path)}</token>' for name, path in pictures.items()]
    (HERE / "pictures.xml").write_text("<macros>\n" + "\n".join(tokens) + "\n</macros>\n")


if __name__ == "__main__":
    main()
