"""What the models of this package are: encoders, a mechanism that joins what a cell has, decoders, and the linear part beside.

A model says how latents meet (:meth:`Fused.fuse`) and what is to be learned besides reconstruction (:meth:`Fused.further`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from xmodal import fields
from xmodal.data.batches import Batch, Cells
from xmodal.fusion.blending import Blend
from xmodal.fusion.coders import Decoder, Encoder, Widths
from xmodal.fusion.hiding import Present, one_only
from xmodal.fusion.target import TargetHead
from xmodal.models.base import CrossModalModel, GradientSettings
from xmodal.models.layers import drawn

if TYPE_CHECKING:
    from xmodal.data.vocabulary import Vocabulary
    from xmodal.pretraining.initial_single import Start

FEWEST, STEPS = 32, 10  # cells of a minibatch at least, minibatches of an epoch where there are few cells
CENTRED = 2_000  # training cells that the mean prediction is taken of
CHUNK = 512


class FusedSettings(GradientSettings):
    epochs: int = Field(40, ge=0, description="Epochs to train; what is a product of features is learned late.")
    batch_size: int = Field(128, ge=8, description="Cells in a minibatch.")
    learning_rate: float = Field(0.003, gt=0, description="Highest learning rate of AdamW.")
    weight_decay: float = Field(0.01, ge=0, description="Weight decay (decoupled, as in AdamW).")
    patience: int = Field(1000, ge=1, description="Epochs without a better validation loss before training stops.")
    schedule: Literal["plateau", "onecycle"] = Field("onecycle", description="Course of the learning rate.")
    hidden: int = Field(256, ge=2, description="Width of the hidden layers.")
    encoder_layers: int = Field(1, ge=1, description="Hidden layers of an encoder.")
    latent: int = Field(32, ge=2, description="Dimensions of the latent.")
    input_dropout: float = Field(0.5, ge=0, lt=1, description="Share of input features hidden in training.")
    dropout: float = Field(0.4, ge=0, lt=1, description="Dropout of hidden layers.")
    hide: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Share of the cells that keep one modality only, in training; with 0 all are needed.",
    )
    target_weight: float = Field(0.1, ge=0, description="Weight of telling the classes of --target, where it is given.")

    def minibatch(self, cells: int) -> int:
        """Smaller ones of few cells, so that an epoch has steps enough."""
        return max(min(self.batch_size, FEWEST), min(self.batch_size, cells // STEPS))


class Fused(CrossModalModel):
    """Base of models that join the latents of the modalities a cell has; see :meth:`fuse`."""

    has_latent = True
    takes_target = True
    min_cells = 50
    settings: FusedSettings

    def __init__(self, settings: FusedSettings, vocabulary: Vocabulary) -> None:
        super().__init__(settings, vocabulary)
        s = settings
        self.widths = Widths(s.hidden, s.latent, s.input_dropout, s.dropout, s.encoder_layers)
        self.encoders = nn.ModuleDict(
            {m: Encoder(vocabulary[m], self.widths, self.encoded_width()) for m in vocabulary}
        )
        self.decoders = nn.ModuleDict(
            {m: Decoder(vocabulary[m], self.widths, self.decoded_width()) for m in vocabulary}
        )
        self.blend = Blend(vocabulary)
        self.target: TargetHead | None = None
        if vocabulary.target is not None:
            self.target = TargetHead(self.fused_width(), settings.hidden, vocabulary, settings.dropout)
        self.register_buffer("seen", torch.zeros((), dtype=torch.float64))  # cells trained on so far
        self.register_buffer("cells", torch.ones((), dtype=torch.float64))
        self.train_cells: Cells | None = None
        self.begins_with: Start | None = None  # pretrained weights

    # What a model may say otherwise

    def encoded_width(self) -> int:
        """Outputs of an encoder."""
        return self.settings.latent

    def decoded_width(self) -> int:
        """Inputs of a decoder."""
        return self.settings.latent

    def fused_width(self) -> int:
        """Dimensions of what :meth:`fuse` gives."""
        return self.settings.latent

    def fuse(self, latents: dict[str, Tensor], present: Present) -> Tensor:
        """The joint latent of the modalities that are ``present``, (cells, latent); the others' latents change nothing."""
        raise NotImplementedError

    def decoded(self, z: Tensor, latents: dict[str, Tensor], shown: Present, modality: str) -> Tensor:
        """What the decoder of ``modality`` reads, (cells, decoded_width)."""
        return z

    def hidden(self) -> float:
        """Share of the training cells that keep one modality only, now."""
        return self.settings.hide

    def taught(self, batch: Batch, shown: Present, modality: str) -> Tensor:
        """The cells whose ``modality`` is to be told, (cells,)."""
        return batch.present[modality]

    def further(self, batch: Batch, latents: dict[str, Tensor], z: Tensor) -> dict[str, Tensor]:
        """Loss terms beside the reconstruction; ``latents``: of all modalities that the batch has, ``z``: of those shown."""
        return {}

    # Training

    def prepare(self, cells: Cells) -> None:
        self.train_cells = cells
        self.get_buffer("cells").fill_(len(cells))
        for m in self.vocabulary:
            self.encoders[m].prepare(cells)  # type: ignore[operator]
            if len(cells.having(m)):
                self.decoders[m].prepare(cells)  # type: ignore[operator]
        if self.begins_with is not None:
            self.begins_with.put_into(self)
        self.blend.prepare(cells)
        if self.target is not None:
            self.target.prepare(cells)

    def running(self) -> list[Tensor]:
        return [self.get_buffer("seen")]

    def done(self) -> float:
        """Share of the epochs that are over; 1 outside training."""
        if not self.training:
            return 1.0
        return float(self.get_buffer("seen") / self.get_buffer("cells")) / max(self.settings.epochs, 1)

    def encoded(self, batch: Batch) -> dict[str, Tensor]:
        """Latents of all modalities, zeros where no cell has one, (cells, encoded_width) each."""
        nothing = torch.zeros(len(batch), self.encoded_width(), device=self.decoders_device())
        return {m: self.encoders[m](batch) if bool(batch.present[m].any()) else nothing for m in self.vocabulary}

    def decoders_device(self) -> torch.device:
        return next(self.parameters()).device

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Every modality that a cell has, from those that are shown, and what the mechanism asks for besides."""
        latents = self.encoded(batch)
        shown = one_only(batch.present, self.hidden()) if self.training else batch.present
        z = self.fuse(latents, shown)
        losses = {}
        for m in self.vocabulary:
            has = self.taught(batch, shown, m)
            if bool(has.any()):
                losses[m] = self.decoder(m).loss(self.decoded(z, latents, shown, m), batch, has)
        losses |= self.further(batch, latents, z)
        if self.target is not None and fields.TARGET_CODE in batch.extra and self.settings.target_weight:
            if self.training and self.hidden() != self.settings.hide:
                # What takes all modalities to tell is learned from the first epoch, whatever else is shown then.
                shown = one_only(batch.present, self.settings.hide)
                z = self.fuse(latents, shown)
            told = self.target.loss(z, batch, shown, batch.extra[fields.TARGET_CODE].long())
            if told is not None:
                losses["target"] = self.settings.target_weight * told
        if self.training:
            self.get_buffer("seen").add_(len(batch))
        return losses

    def finish(self, cells: Cells) -> None:
        """How much network and linear part are worth, on the validation cells."""
        train = self.train_cells
        if train is None:
            return
        self.to("cpu")
        held = cells if cells is not train and not np.isin(cells.names, train.names).any() else None
        for s, t in self.learned(train):
            both = train.having(s, t)

            def own(batch: Batch, s: str = s, t: str = t) -> Tensor:
                return self.from_network(batch.only(s), t)

            self.blend.centre(both.subset(drawn(len(both), 1, CENTRED)), s, t, own)
            if held is not None and len(held.having(s, t)) > 1:
                self.blend.weigh(held.having(s, t), s, t, own)
        if self.target is not None and held is not None:
            self._calibrate(self.target, held)
        self.train_cells = None

    @torch.no_grad()
    def _calibrate(self, head: TargetHead, held: Cells) -> None:
        """How sure the head may be, and of which modalities, by cells it was not fitted to."""
        was = self.training
        self.eval()
        some = held.subset(drawn(len(held), 1, CENTRED))
        parts = []
        for start in range(0, len(some), CHUNK):
            batch = some.batch(slice(start, start + CHUNK))
            together, alone, whole = self._told(head, batch)
            parts.append([together, batch.extra[fields.TARGET_CODE].long(), whole, *alone, *batch.present.values()])
        together, code, whole, *rest = (torch.cat(one) for one in zip(*parts, strict=True))
        many = len(rest) // 2
        alone, present = rest[:many], rest[many:]
        each = [one[there] for one, there in zip(alone, present, strict=True)]
        codes = [code[there] for there in present]
        head.calibrate(torch.cat([together, *each]), torch.cat([code, *codes]))
        head.weigh(together[whole], [one[whole] for one in alone], code[whole])
        self.train(was)

    def _told(self, head: TargetHead, batch: Batch) -> tuple[Tensor, list[Tensor], Tensor]:
        """Logits from all that is there and from each modality alone, (cells, classes) each; which cells have all, (cells,)."""
        logits = [
            head.logits(self.joint(b)[0], b, b.present) for b in (batch, *(batch.only(m) for m in self.vocabulary))
        ]
        return logits[0], logits[1:], torch.stack(list(batch.present.values())).all(0)

    # Use

    def decoder(self, modality: str) -> Decoder:
        found = self.decoders[modality]
        assert isinstance(found, Decoder)
        return found

    def joint(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The joint latent of all that is present, and the latents it was made of."""
        latents = self.encoded(batch)
        return self.fuse(latents, batch.present), latents

    def from_network(self, batch: Batch, modality: str, plain: bool = False) -> Tensor:
        """Expected values of ``modality`` from all that is present, without the linear part, (cells, features)."""
        z, latents = self.joint(batch)
        return self.decoder(modality)(self.decoded(z, latents, batch.present, modality), plain)

    def embed(self, batch: Batch) -> Tensor:
        there = torch.stack([batch.present[m] for m in self.vocabulary]).any(0)
        return self.joint(batch)[0] * there[:, None]

    def tell_target(self, batch: Batch) -> Tensor:
        if self.target is None:
            return super().tell_target(batch)
        return self.target.probabilities(*self._told(self.target, batch))

    def shared(self, batch: Batch) -> Tensor:
        """The part of the embedding that any modality alone can tell, (cells, dimensions)."""
        return self.embed(batch)

    def impute(self, batch: Batch, modality: str) -> Tensor:
        return self.from_network(batch, modality, plain=True)

    def predict(self, batch: Batch, source: str, target: str) -> Tensor:
        own = self.from_network(batch.only(source), target)
        blended: Tensor = self.blend(own, batch, source, target)
        return blended
