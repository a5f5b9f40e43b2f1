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


def main() -> None:
    xmodal = Path(sys.executable).parent / "xmodal"
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        cells = example.example(folder, MADE / "xmodal_models.loc").cells
        model, table = MADE / "demo" / "model.safetensors", ["--overview", folder / "overview"]
        done = ["--checkpoint", model, "--output", folder / "p.h5ad", *table]
        subprocess.run([xmodal, "predict", cells, "--to", "atac", *done], check=True)
        given = ["--training", MADE / "demo" / "training", "--evaluation", MADE / "demo" / "evaluation"]
        subprocess.run(
            [xmodal, "report", *given, "--output", folder / "r.html", "--plots", folder / "plots"], check=True
        )
        pictures = {
            "PREDICT": folder / "overview" / "prediction.png",
            "TRAIN": folder / "plots" / "learning-training.png",
            "EVALUATE": folder / "plots" / "scores-evaluation-atac.png",
        }
        tokens = [f'    <token name="@PICTURE_{name}@">{data(path)}</token>' for name, path in pictures.items()]
    (HERE / "pictures.xml").write_text("<macros>\n" + "\n".join(tokens) + "\n</macros>\n")


if __name__ == "__main__":
    main()
