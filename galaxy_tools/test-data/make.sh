#!/usr/bin/env bash
# Makes the files of this folder anew: 270 simulated cells of three types in three batches. Run it from any folder with xmodal on PATH.
set -euo pipefail
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
xmodal simulate --output-dir made --cells 270 --genes 20 --peaks 40 --coupling linear --tree 3 --batches 3 --depth 120 --open 0.15 \
    --chromosomes 2 --label-key cell_type --seed 2 --no-rates
python - <<'PY'
import gzip

import anndata
for name in ("rna", "atac"):
    cells = anndata.read_h5ad(f"made/{name}.h5ad")
    # Few columns and no notes of the simulation: a small file
    cells.obs = cells.obs[["batch", "cell_type"]]
    del cells.uns["xmodal"]
    cells.write_h5ad(f"{name}.h5ad", compression="gzip")
# Fragments of the first 60 cells, one for each open peak
peaks = anndata.read_h5ad("atac.h5ad")[:60]
found = peaks.X.tocoo()
lines = []
for cell, peak in zip(found.row, found.col, strict=True):
    chrom, _, ends = peaks.var_names[peak].partition(":")
    start = int(ends.split("-")[0])
    lines.append((chrom, start + 20, start + 120 + cell, peaks.obs_names[cell], 1))
with gzip.GzipFile("fragments.tsv.gz", "wb", mtime=0) as file:
    for line in sorted(lines):
        file.write("\t".join(map(str, line)).encode() + b"\n")
PY
xmodal prepare --rna rna.h5ad --atac atac.h5ad --split-by batch --min-peak-fraction 0 --output prepared.h5mu --summary prepare.json
xmodal train prepared.h5mu --model linear --output-dir training
xmodal predict prepared.h5mu --split test --from rna --to atac --checkpoint training/model.safetensors --output predicted_atac.h5ad \
    --interval 0 --summary predicted_atac.json
xmodal predict prepared.h5mu --split test --from rna --to atac --checkpoint training/model.safetensors --output latent_atac.h5ad \
    --output-kind latent
cp rna.h5ad atac.h5ad fragments.tsv.gz prepared.h5mu prepare.json predicted_atac.h5ad predicted_atac.json latent_atac.h5ad "$here/"
cp training/model.safetensors training/metrics.json training/history.tsv "$here/"
xmodal evaluate prepared.h5mu --prediction atac=predicted_atac.h5ad --label-key cell_type --umap-cells 0 --output-dir evaluation
cp evaluation/metrics.json "$here/evaluation.json"
cp evaluation/features.tsv "$here/evaluation_features.tsv"
cp made/genes.tsv "$here/"
# Two tables of windows, whose state takes both to tell
python - "$here" <<'PY'
import random
import sys
from pathlib import Path

draw, here = random.Random(1), Path(sys.argv[1])
physio, motion, states = ["window,pulse,breath,skin"], ["window\tx\ty\tz"], ["window,state"]
for n in range(60):
    p, q = draw.random() < 0.5, draw.random() < 0.5
    physio.append(f"w{n},{draw.gauss(70 + 8 * p, 4):.1f},{draw.gauss(14 + 2 * p, 1):.2f},{draw.gauss(0.3 + 0.2 * p, 0.1):.3f}")
    motion.append(f"w{n}\t{draw.gauss(q, 0.5):.3f}\t{draw.gauss(-q, 0.5):.3f}\t{draw.gauss(0, 0.5):.3f}")
    states.append(f"w{n},{'rest' if not q else 'strain' if p else 'effort'}")
for name, lines in (("physio.csv", physio), ("motion.tsv", motion), ("states.csv", states)):
    (here / name).write_text("\n".join(lines) + "\n")
PY
# A joint analysis of the same cells
xmodal train prepared.h5mu --model sailerx --set hidden=32 --set latent=8 --batch-key batch --output-dir joint
xmodal embed prepared.h5mu --checkpoint joint/model.safetensors --clusters 3 --by-modality --output embedded.h5mu --overview embedding
xmodal markers embedded.h5mu --output-dir markers
cp joint/model.safetensors "$here/joint.safetensors"
cp embedded.h5mu "$here/"
cp embedding/embedding.json embedding/clusters.tsv "$here/"
python -c "from PIL import Image; Image.open('embedding/embedding.png').convert('RGB').quantize(32).save('$here/embedding.png', optimize=True)"
cp markers/markers.json markers/markers.tsv markers/markers_rna.png "$here/"
# The same types as a column that a model tells from both modalities
xmodal train prepared.h5mu --model contrastive --target cell_type --set epochs=10 --set hidden=16 --set latent=8 --output-dir told
xmodal predict prepared.h5mu --split test --to cell_type --checkpoint told/model.safetensors --output told.h5ad
cp told/model.safetensors "$here/told.safetensors"
cp told.h5ad "$here/"
# Cell types of the same cells, by a small ontology
printf 'label\tcell_type_ontology_term_id\nSIM:0000002\tCL:0000084\nSIM:0000003\tCL:0000236\nSIM:0000004\tCL:0000576\n' > label_terms.tsv
printf 'prompt\nT cell\nCL:0000236\nlymphocyte\n' > prompts.tsv
xmodal train prepared.h5mu --model scmmgpt --label-key cell_type --label-terms label_terms.tsv --ontology "$here/ontology.tsv" \
    --set epochs=12 --set hidden=16 --set members=2 --output-dir types
xmodal annotate prepared.h5mu --checkpoint types/model.safetensors --output annotated.h5ad --report-dir annotation
cp types/model.safetensors "$here/types.safetensors"
cp label_terms.tsv prompts.tsv annotated.h5ad annotation/annotation.json annotation/annotation.tsv annotation/composition.tsv "$here/"
python -c "from PIL import Image; Image.open('annotation/annotation.png').convert('RGB').quantize(32).save('$here/annotation.png', optimize=True)"
# The same in words, and cells from words
xmodal describe annotated.h5ad --checkpoint types/model.safetensors --output-dir described
xmodal generate --checkpoint types/model.safetensors --prompts prompts.tsv --cells 20 --output generated.h5ad --overview generated
cp described/descriptions.json generated/generated.json "$here/"
cp generated/prompts.tsv "$here/generated_prompts.tsv"
cp generated/genes.tsv "$here/generated_genes.tsv"
python -c "from PIL import Image; Image.open('generated/generated.png').convert('RGB').quantize(32).save('$here/generated.png', optimize=True)"
# The sums of the models in the table
for model in model joint types; do
    sum=$(sha256sum "$here/$model.safetensors" | cut -d ' ' -f 1)
    sed -i -E "s#[0-9a-f]{64}(\t[^\t]*/$model\.safetensors)\$#$sum\1#" "$here/xmodal_models.loc"
done
