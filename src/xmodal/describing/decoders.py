"""Which decoder words the sentences: choosing, teaching, keeping and loading it.

A trained decoder is a folder with ``decoder.safetensors`` (its weights; one header key, ``xmodal``) and, of ``scratch``, the
tokenizer.  It is bound to the checkpoint whose joint space it reads.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xmodal import __version__, fields
from xmodal.describing.settings import HF, SCRATCH, DecoderChoice
from xmodal.errors import InputRefused
from xmodal.outputs import replacing_files

if TYPE_CHECKING:
    import torch

    from xmodal.describing.neural import NeuralDecoder, Speaker, TeachingSettings
    from xmodal.text.bank import TextBank

log = logging.getLogger(__name__)
DECODER_FILE, TOKENIZER_FILE = OWN = ("decoder.safetensors", "tokenizer.json")
KEY = "xmodal"
TRAIN = "train one: xmodal describe --checkpoint CHECKPOINT --decoder {} --train-decoder DIR"


@dataclass(frozen=True)
class Texts:
    """What the checkpoint knows: its ``bank``, the joint vectors of its texts by view (ids, width), its ``sha256``."""

    bank: TextBank
    projected: dict[str, torch.Tensor]
    sha256: str

    @property
    def width(self) -> int:
        return int(next(iter(self.projected.values())).shape[1])


@dataclass(frozen=True)
class How:
    """Of training; ``tokens``: a directory with a tokenizer, for scratch."""

    device: torch.device
    seed: int
    overwrite: bool
    tokens: Path | None = None


def texts_of(model: Any, bank: TextBank, sha256: str) -> Texts:
    """The texts of a checkpoint's ``bank`` in the joint space of its ``model``."""
    import torch

    with torch.no_grad():
        projected = {v: model.text_projection(torch.from_numpy(x)).float().cpu() for v, x in bank.embeddings.items()}
    return Texts(bank, projected, sha256)


def train(
    choice: DecoderChoice, texts: Texts, folder: Path, settings: TeachingSettings, how: How, shape: Any = None
) -> dict[str, Any]:
    """Teach a decoder and write it into ``folder``; ``shape``: settings of the decoder, None: its defaults.

    Returns what was done.
    """
    from safetensors.torch import save_file

    from xmodal.describing import neural

    seed, overwrite = how.seed, how.overwrite
    speaker, about = _new(choice, texts, how, shape)
    speaker.to(how.device)
    loss = neural.teach(speaker, texts.bank, texts.projected, settings, seed)
    header = {
        **about,
        "schema": fields.DECODER_SCHEMA,
        "version": __version__,
        "prefix": texts.width,
        "checkpoint_sha256": texts.sha256,
        "teaching": settings.model_dump(mode="json"),
        "seed": seed,
        "loss": round(loss, 4),
    }
    kept = speaker.trained() if choice.kind != SCRATCH else speaker.state_dict()
    with replacing_files(folder, OWN, overwrite) as temporary:
        tensors = {k: v.detach().cpu().contiguous() for k, v in sorted(kept.items())}
        save_file(tensors, temporary / DECODER_FILE, {KEY: json.dumps(header, sort_keys=True)})
        if choice.kind == SCRATCH:
            (temporary / TOKENIZER_FILE).write_text(speaker.tokenizer.to_str(), encoding="utf-8")
    parameters = sum(p.numel() for p in speaker.parameters() if p.requires_grad)
    return {"decoder": choice.kind, "parameters": parameters, "steps": settings.steps, "loss": header["loss"]}


def _new(choice: DecoderChoice, texts: Texts, how: How, shape: Any) -> tuple[Any, dict[str, Any]]:
    import torch

    torch.manual_seed(how.seed)
    speaker: Speaker
    if choice.base is not None:
        from xmodal.describing import language_model

        adapter = shape or language_model.AdapterSettings()
        base, tokenizer = language_model.load(choice.base)
        speaker = language_model.Adapted(base, tokenizer, adapter, texts.width)
        named = {"name": choice.base.resolve().name, "sha256": language_model.digest(choice.base)}
        return speaker, {"kind": choice.kind, "settings": adapter.model_dump(mode="json"), "base": named}
    from xmodal.describing import scratch

    assert how.tokens is not None
    own = shape or scratch.ScratchSettings()
    speaker = scratch.Scratch(own, scratch.tokenizer_of(how.tokens), texts.width)
    return speaker, {"kind": choice.kind, "settings": own.model_dump(mode="json")}


def load(choice: DecoderChoice, folder: Path, texts: Texts, how: tuple[torch.device, int]) -> NeuralDecoder:
    """A trained decoder; ``how`` = (device, seed).

    Raises :class:`InputRefused` where it is none, or of another kind, checkpoint or language model.
    """
    from safetensors import SafetensorError, safe_open

    from xmodal.describing.neural import NeuralDecoder

    file = folder / DECODER_FILE
    where = f"--decoder-dir {folder}"
    do = TRAIN.format(choice.kind if choice.base is None else f"{HF}DIR")
    if not file.is_file():
        raise InputRefused(f"there is no {DECODER_FILE}", where=where, do=do)
    try:
        with safe_open(file, "pt") as handle:
            header = json.loads((handle.metadata() or {}).get(KEY, "{}"))
            tensors = {key: handle.get_tensor(key) for key in handle.keys()}  # noqa: SIM118 (it is no dictionary)
    except (SafetensorError, OSError, ValueError) as error:
        raise InputRefused(f"{DECODER_FILE} cannot be read ({error})", where=where, do=do) from None
    _require(header, choice, texts, where, do)
    try:
        speaker = _rebuilt(header, choice, texts, folder)
        speaker.load_state_dict(tensors, strict=True) if choice.base is None else speaker.fill(tensors)
    except (RuntimeError, KeyError, TypeError, ValueError) as error:
        why = str(error).splitlines()[0]
        raise InputRefused(f"{DECODER_FILE} does not fit its model ({why})", where=where, do=do) from None
    name = choice.kind if choice.base is None else f"{HF}{header['base']['name']}"
    return NeuralDecoder(speaker.to(how[0]), name, how)


def _rebuilt(header: dict[str, Any], choice: DecoderChoice, texts: Texts, folder: Path) -> Any:
    if choice.base is not None:
        from xmodal.describing import language_model

        settings = language_model.AdapterSettings(**header["settings"])
        return language_model.Adapted(*language_model.load(choice.base), settings, texts.width)
    from xmodal.describing import scratch

    return scratch.Scratch(scratch.ScratchSettings(**header["settings"]), scratch.kept_tokenizer(folder), texts.width)


def _require(header: dict[str, Any], choice: DecoderChoice, texts: Texts, where: str, do: str) -> None:
    if header.get("schema") != fields.DECODER_SCHEMA:
        raise InputRefused(f"{DECODER_FILE} is no decoder that this xmodal wrote", where=where, do=do)
    if header["kind"] != choice.kind:
        raise InputRefused(f"it holds a decoder of the kind {header['kind']}, not {choice.kind}", where=where, do=do)
    if header["checkpoint_sha256"] != texts.sha256:
        raise InputRefused("it was trained for another checkpoint, whose vectors mean other things", where=where, do=do)
    if choice.base is not None:
        from xmodal.describing import language_model

        language_model.require(choice.base)
        if language_model.digest(choice.base) != header["base"]["sha256"]:
            known = header["base"]["name"]
            what = f"it was trained on top of another language model ({known}) than {choice.base.name}"
            raise InputRefused(what, where=where, do="give --decoder hf:DIR that model, or train again")
