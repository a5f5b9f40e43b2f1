"""From prompts and a checkpoint to generated cells."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xmodal import fields, memory, provenance, registry
from xmodal.data import io
from xmodal.errors import InputRefused, NotApplicable
from xmodal.generating import prompts, writing
from xmodal.generating.writing import Generated

if TYPE_CHECKING:
    import torch

    from xmodal.generating.prompts import Prompt, TextModel
    from xmodal.generating.settings import GenerateSettings
    from xmodal.learning.checkpoint import Checkpoint
    from xmodal.models.parts.generator import TextGenerator
    from xmodal.text.bank import TextBank

log = logging.getLogger(__name__)
ABILITY = "generator"  # the attribute of models that generate


@dataclass(frozen=True)
class Outputs:
    """Where to write; ``overview`` (a folder) only where asked for."""

    file: Path
    overview: Path | None
    overwrite: bool


@memory.refusing("the model")
def run(
    checkpoint: Path,
    asked: Sequence[str],
    outputs: Outputs,
    settings: GenerateSettings,
    model: TextModel,
    how: tuple[torch.device, int],
) -> dict[str, Any]:
    """Generate and write; ``how`` = (device, seed).  Returns the summary."""
    from xmodal.learning.checkpoint import load

    loaded = load(checkpoint)
    generator, texts = of(loaded, checkpoint)
    found = prompts.understood(asked, generator, texts, model, settings.force)
    about = _about((loaded, checkpoint), (generator, texts), found, settings, how)
    device, seed = how
    generator.to(device)
    made = generated(generator, found, settings, seed)
    typical = generator.profiles()
    which = np.repeat(np.arange(len(found)), settings.cells)
    modality = loaded.model.vocabulary[fields.RNA]
    result = Generated(found, which, made, modality, texts, typical, about)
    io.write_h5ad(writing.cells(result), outputs.file, outputs.overwrite)
    summary = _summary(result)
    if outputs.overview is not None:
        writing.write_overview(outputs.overview, result, summary, seed)
    return summary


def of(loaded: Checkpoint, path: Path) -> tuple[TextGenerator, TextBank]:
    """The generator of a checkpoint and its texts; :class:`NotApplicable` for a model that has none."""
    model = loaded.model
    if not hasattr(model, ABILITY):
        able = [n for n in registry.names() if registry.get(n).takes_labels]
        raise NotApplicable(
            f"this checkpoint's model ({model.name}) does not generate; models that do: {', '.join(able) or 'none'}"
        )
    texts = model.vocabulary.texts
    if model.generator is None or texts is None:
        raise InputRefused(
            "it was trained without a generator",
            where=str(path),
            do="train again with --set generator_passes=40, or leave that setting out",
        )
    return model.generator, texts  # type: ignore[return-value]


def generated(generator: TextGenerator, found: list[Prompt], settings: GenerateSettings, seed: int) -> Any:
    """Counts of all cells, int32 CSR (prompts x cells, genes); a prompt's cells do not depend on the prompts beside it."""
    import scipy.sparse as sp

    parts = []
    for prompt in found:
        rng = np.random.default_rng([seed, zlib.crc32(prompt.given.encode())])
        parts.append(generator.sample(prompt.wanted, settings.cells, rng, settings.counts()))
        log.info("%d cells for '%s'", settings.cells, prompt.given)
    return sp.vstack(parts, format="csr")


def _about(
    model: tuple[Checkpoint, Path],
    parts: tuple[TextGenerator, TextBank],
    found: list[Prompt],
    settings: GenerateSettings,
    how: tuple[torch.device, int],
) -> dict[str, Any]:
    """Provenance; ``how`` = (device, seed)."""
    (loaded, checkpoint), (generator, texts), (device, seed) = model, parts, how
    known, labels = generator.known, loaded.model.vocabulary.labels
    assert labels is not None
    inner = {
        "prompts": [p.to_json(texts) for p in found],
        "cells": settings.cells,
        "depth": settings.depth,
        "forced": settings.force,
        "limits": {"extrapolating": round(known.extrapolating, 4), "outside": round(known.outside, 4)},
        "seen": list(known.ids),
        "trained": {"key": labels.key, "values": list(labels.values), "terms": list(labels.terms)},
        "names": {t: texts.ontology.terms[t].name for t in sorted({*known.ids, *(p.term for p in found if p.term)})},
        "ontology": {"source": texts.ontology.source, "version": texts.ontology.version},
        "text_encoder": dict(texts.encoder),
        "model_settings": loaded.model.settings.model_dump(mode="json"),
    }
    return provenance.record(
        "generate",
        inner,
        schema=fields.GENERATED_SCHEMA,
        model=loaded.model.name,
        model_version=str(loaded.header["version"]),
        checkpoint_sha256=provenance.sha256(checkpoint),
        seed=seed,
        device=device.type,
    )


def _summary(found: Generated) -> dict[str, Any]:
    """What a person or a pipeline wants to know: the provenance's scalars, and each prompt with its cells."""
    total = np.asarray(found.counts.sum(1)).ravel()
    kept = ("schema", "model", "checkpoint_sha256", "seed")
    each = [
        {
            **prompt.to_json(found.texts),
            "cells": int((found.which == i).sum()),
            "median_counts": float(np.median(total[found.which == i])),
        }
        for i, prompt in enumerate(found.prompts)
    ]
    return {
        **{k: found.about[k] for k in kept},
        "cells": len(found.which),
        "genes": found.counts.shape[1],
        "prompts": each,
    }
