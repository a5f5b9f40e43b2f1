"""Models and checkpoints in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from xmodal import fields, provenance, registry
from xmodal.errors import UsageRefused
from xmodal.learning import checkpoint as checkpoints


def models() -> dict[str, Any]:
    """Every registered model: what it is and what it can do."""
    return {"models": [_summary(name) for name in registry.names()]}


def model(name: str) -> dict[str, Any]:
    """One model with its settings, their defaults and meanings."""
    known = registry.get(name).Settings.model_fields
    settings = [
        {"name": k, "default": f.get_default(call_default_factory=True), "meaning": f.description or ""}
        for k, f in known.items()
    ]
    return {**_summary(name), "settings": settings}


def _summary(name: str) -> dict[str, Any]:
    found = registry.get(name)
    jobs = ["predict"] + (["embed"] if found.has_latent else [])
    return {"name": name, "summary": found.summary, "jobs": jobs, "min_cells": found.min_cells, "source": found.source}


def checkpoint(path: Path) -> dict[str, Any]:
    """What a checkpoint is and knows: the header without its feature lists."""
    header = checkpoints.read_header(path)
    modalities = {
        m["name"]: {
            "features": len(m["features"]),
            "first": m["features"][:3],
            "likelihood": m["likelihood"],
            "scale": m["scale"],
            "genome": m["genome"],
        }
        for m in header["vocabulary"]["modalities"]
    }
    kept = {k: header[k] for k in ("format", "version", "model", "settings", "directions", "training", "content")}
    return {**kept, "modalities": modalities, "sha256": provenance.sha256(path)}


def features(path: Path, modality: str) -> list[str]:
    """Feature names of one modality, in the checkpoint's order."""
    known = {m["name"]: m["features"] for m in checkpoints.read_header(path)["vocabulary"]["modalities"]}
    if modality not in known:
        raise UsageRefused(f"--features {modality}: the checkpoint knows {', '.join(known)}")
    return list(known[modality])


def text(content: dict[str, Any]) -> str:
    """Content of the functions above as lines for a person."""
    if "models" in content:
        width = max(len(m["name"]) for m in content["models"])
        return "\n".join(f"{m['name']:<{width}}  {', '.join(m['jobs']):<14}  {m['summary']}" for m in content["models"])
    if "meaning" in str(content.get("settings", "")) or isinstance(content.get("settings"), list):
        lines = [
            f"{content['name']}: {content['summary']}",
            f"from: {content['source']}",
            "",
            "settings (--set NAME=VALUE):",
        ]
        return "\n".join(lines + [f"  {s['name']} = {s['default']}: {s['meaning']}" for s in content["settings"]])
    training, split = content["training"], content["training"].get("split", {})
    counts = ", ".join(f"{k} {split[k]}" for k in ("train", "valid", "test") if k in split)
    lines = [
        f"model: {content['model']} (format {content['format']}, written by xmodal {content['version']})",
        f"sha256: {content['sha256']}",
        *(
            f"{m}: {v['features']} features ({', '.join(v['first'])}, ...), {v['likelihood']}, {v['scale']}, "
            f"genome {v['genome'] or 'unknown'}"
            for m, v in content["modalities"].items()
        ),
        "predicts: " + ", ".join(f"{s} -> {t}" for s, t in content["directions"]),
        f"trained on: {counts or 'unknown'} cells; best epoch {training.get('best_epoch')} of {training.get('epochs')}",
        f"trained in: {training.get(fields.PRECISION, fields.FP32)}",
        f"holds: {content['content']}",
        "settings: " + ", ".join(f"{k}={v}" for k, v in content["settings"].items()),
    ]
    return "\n".join(lines)
