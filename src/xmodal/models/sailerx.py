"""SAILERX: joint analysis by structural similarity, on cells with several modalities and cells with one (NAR 2022, 50:e121).

One invariant latent for all modalities.  Each modality has an encoder to a Gaussian; the Gaussians a cell has are multiplied
(product of experts), so a modality weighs as much as it knows about the cell and one that is missing changes nothing.
Decoders get depth and batch besides, so the latent need not tell of them.  Cells that are alike in a reference embedding
(that of the leading modality, or any the file brings) shall be alike in the latent.

What differs from the paper, and why: docs/models.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from xmodal import fields, ranks
from xmodal.data.batches import Batch, Cells
from xmodal.data.transforms import CP
from xmodal.errors import SettingRefused
from xmodal.models.base import CrossModalModel, GradientSettings, ModelSettings
from xmodal.models.layers import drawn
from xmodal.models.likelihoods import Head
from xmodal.models.parts.confounders import Depths
from xmodal.models.parts.experts import Decoder, Encoder, Gaussian
from xmodal.models.parts.placing import Place, Placing
from xmodal.models.parts.projections import Projection, reliability
from xmodal.models.parts.similarity import cosines, dependence, mutual_information, unlikeness

if TYPE_CHECKING:
    from collections.abc import Iterable

    from xmodal.data.vocabulary import Vocabulary

Places = dict[str, Place]
OBSM = "obsm:"
FEWEST, STEPS = 32, 15  # cells of a minibatch at least, minibatches of an epoch where there are few cells
MOMENTUM = 0.05  # of the mean precisions
WARM_UP = 0.3  # share of a cycle in which the regularisers rise


class SailerXSettings(GradientSettings):
    epochs: int = Field(40, ge=0, description="Epochs to train.")
    batch_size: int = Field(256, ge=8, description="Cells in a minibatch; similarity is compared within it.")
    learning_rate: float = Field(0.002, gt=0, description="Highest learning rate of AdamW.")
    weight_decay: float = Field(0.001, ge=0, description="Weight decay (decoupled, as in AdamW).")
    patience: int = Field(1000, ge=1, description="Epochs without a better validation loss before training stops.")
    schedule: Literal["plateau", "onecycle"] = Field("onecycle", description="Course of the learning rate.")
    clip: float = Field(50.0, gt=0, description="Largest norm of the gradient.")
    reference: str = Field(
        "auto",
        description="What leads: a modality, or obsm:KEY of the file; auto: all, each as far as its structure is reliable.",
    )
    reference_dimensions: int = Field(15, ge=2, description="Dimensions of the reference made of a modality.")
    latent: int = Field(20, ge=2, description="Dimensions of the latent.")
    hidden: int = Field(128, ge=2, description="Width of the hidden layers.")
    similarity: float = Field(200.0, ge=0, description="Weight of the similarity of pairs of cells to the reference.")
    invariance: float = Field(300.0, ge=0, description="Weight of the latent's dependence on depth.")
    mutual_information: float = Field(0.0, ge=0, description="Weight of the paper's bound on mutual information.")
    kl: float = Field(1.0, ge=0, description="Weight of the divergence from the prior.")
    cycles: int = Field(
        1, ge=1, description="Times the weights of divergence and invariance rise from 0 (cyclic ramp)."
    )
    hide: float = Field(0.5, ge=0, le=1, description="Share of the cells that keep one modality only, in training.")
    input_dropout: float = Field(0.5, ge=0, lt=1, description="Share of the peaks hidden in training.")
    dropout: float = Field(0.1, ge=0, lt=1, description="Dropout of hidden layers.")
    trust: float = Field(
        0.33,
        ge=0,
        le=1,
        description="Weight of a modality in the embedding: 0 as its encoder claims, 1 as its structure is reliable.",
    )
    place: float = Field(
        0.85,
        ge=0,
        le=1,
        description="Share of a cell's measured place in its embedding, depth and batch taken out; the rest is as the latent "
        "puts it.",
    )
    own: float = Field(0.15, ge=0, lt=1, description="Share of a cell's own counts in its imputed values.")

    def minibatch(self, cells: int) -> int:
        """Smaller ones of few cells, so that an epoch has steps enough."""
        return max(min(self.batch_size, FEWEST), min(self.batch_size, cells // STEPS))


class SailerX(CrossModalModel):
    """Joint analysis by structural similarity."""

    name = "sailerx"
    summary = "SAILERX: one invariant latent of all modalities, led by one; embeds, imputes and predicts."
    source = "SAILERX, Nucleic Acids Research 2022, 50(21):e121"
    Settings = SailerXSettings
    streams = True
    has_latent = True
    decodes = True
    takes_batches = True
    shares = True
    min_cells = 50
    settings: SailerXSettings

    def __init__(self, settings: SailerXSettings, vocabulary: Vocabulary) -> None:
        super().__init__(settings, vocabulary)
        self.lead = leading(settings, vocabulary)
        batches = len(vocabulary.batches) if vocabulary.batches is not None else 0
        self.encoders = nn.ModuleDict({m: Encoder(settings, vocabulary[m]) for m in vocabulary})
        self.decoders = nn.ModuleDict({m: Decoder(settings, vocabulary[m], batches) for m in vocabulary})
        self.placing: Placing | None = None
        if vocabulary.reference is None and settings.place:  # new cells need not have a reference of the file
            widths = {m: self._projection(m).width for m in self._led_by()}
            self.placing = Placing(settings.latent, widths, batches)
        self.depths = Depths(list(vocabulary), self._reference_width(), self.lead)
        for m in vocabulary:
            self.register_buffer(f"reliable_{m}", torch.tensor(1 / len(vocabulary.modalities)))  # sum to one
            self.register_buffer(f"precision_{m}", torch.ones(()))  # mean over cells and dimensions
        self.register_buffer("seen", torch.zeros((), dtype=torch.float64))  # cells trained on so far
        self.register_buffer("cells", torch.ones((), dtype=torch.float64))

    @classmethod
    def reference_key(cls, settings: ModelSettings) -> str | None:
        assert isinstance(settings, SailerXSettings)
        return settings.reference.removeprefix(OBSM) if settings.reference.startswith(OBSM) else None

    # Statistics of the training cells

    @torch.no_grad()
    def prepare(self, cells: Cells) -> None:
        self.get_buffer("cells").fill_(len(cells))
        for m in self.vocabulary:
            self.encoders[m].projection.prepare(cells)  # type: ignore[union-attr, operator]
            self.decoders[m].head.prepare(cells)  # type: ignore[union-attr, operator]
        noise = {m: reliability(cells, m, self.settings.reference_dimensions) for m in self.vocabulary}
        signal = {m: r / (1 - r) for m, r in noise.items()}
        for m in self.vocabulary:
            self.get_buffer(f"reliable_{m}").fill_(signal[m] / sum(signal.values()))
        some = cells.subset(drawn(len(cells), 1, 20_000)).in_memory()
        places, reference, known, covariates = self._small(
            some.batch(slice(i, i + 512)) for i in range(0, len(some), 512)
        )
        self.depths.prepare(places, reference, known)
        if self.placing is not None:
            worth = {m: signal[m] for m in self._led_by()}
            self.placing.prepare({m: places[m] for m in worth}, covariates, worth)

    def _small(self, batches: Iterable[Batch]) -> tuple[Places, Tensor, Tensor, Tensor]:
        """Places, reference, which cells have one, covariates of all the batches, of which one at a time is dense."""
        every, rest = [], []
        for batch in batches:
            every.append(self._places(batch))
            rest.append((*self._reference(batch, every[-1]), self._covariates(batch)))
        joined = {m: Place.joined([one[m] for one in every]) for m in self.vocabulary}
        reference, known, covariates = (torch.cat(parts) for parts in zip(*rest, strict=True))
        return joined, reference, known, covariates

    # What a cell's counts say besides its state

    def _led_by(self) -> list[str]:
        """The modalities whose projections are the reference: the one asked for, or all."""
        return [self.lead] if self.settings.reference in self.vocabulary.modalities else list(self.vocabulary)

    def _projection(self, m: str) -> Projection:
        found = self.encoders[m].projection
        assert isinstance(found, Projection)
        return found

    def _places(self, batch: Batch) -> Places:
        """Of every modality, in its projection; a modality that no cell has is left out of the sums, not of the dictionary."""
        found = {}
        for m in self.vocabulary:
            own = self._projection(m)(batch.own), log_depth(batch.own, m)
            place, depth = (ranks.gathered(x, len(batch)) for x in own)
            found[m] = Place(place, depth, batch.present[m])
        return found

    def _reference_width(self) -> int:
        if self.vocabulary.reference is not None:
            return self.vocabulary.reference.width
        return sum(self._projection(m).width for m in self._led_by())

    def _reference(self, batch: Batch, places: Places) -> tuple[Tensor, Tensor]:
        """The reference embedding, rows of length 1, (cells, width), and which cells have one.

        Of several modalities side by side, each by the root of its reliability, so that a cosine is the mean of theirs.
        """
        if self.vocabulary.reference is not None:
            given = batch.extra[fields.REFERENCE]
            return F.normalize(given.nan_to_num(), dim=1), given.isfinite().all(1)
        parts, known = [], torch.zeros(len(batch), dtype=torch.bool, device=batch.present[self.lead].device)
        for m in self._led_by():
            there = batch.present[m]
            parts.append(places[m].place * self.get_buffer(f"reliable_{m}").sqrt() * there[:, None])
            known = known | there
        return F.normalize(torch.cat(parts, 1), dim=1), known

    def _wanted(self, batch: Batch, places: Places) -> tuple[Tensor, Tensor]:
        """Cosines that pairs of cells shall have, and how far each pair's is known, (n, n) both.

        Of the modalities that both cells of a pair have: the part that one of them lacks says nothing about how alike they are,
        and counted as a cosine of zero it would drive cells with one modality away from cells with several.
        """
        if self.vocabulary.reference is not None:
            reference, known = self._reference(batch, places)
            return cosines(reference, reference), (known[:, None] & known[None]).float()
        total = torch.zeros(len(batch), len(batch), device=batch.present[self.lead].device)
        share = torch.zeros_like(total)
        for m in self._led_by():
            place, there = places[m].place, batch.present[m]
            both = self.get_buffer(f"reliable_{m}") * (there[:, None] & there[None]).float()
            total, share = total + both * (place @ place.T), share + both
        return total / share.clamp(min=1e-9), share

    def _covariates(self, batch: Batch) -> Tensor:
        """One column for each batch of the training cells; a cell of another batch is a bit of each, (cells, batches)."""
        known = self.vocabulary.batches
        if known is None or fields.BATCH_CODE not in batch.extra:
            width = 0 if known is None else len(known)
            return torch.full((len(batch), width), 1 / max(width, 1), device=batch.present[self.lead].device)
        code = batch.extra[fields.BATCH_CODE]
        one = F.one_hot(code.clamp(min=0), len(known)).float()
        return torch.where(code[:, None] < 0, torch.full_like(one, 1 / len(known)), one)

    # The latent

    def _posteriors(self, batch: Batch, places: Places) -> dict[str, Gaussian]:
        return {m: self.encoders[m](batch, places[m].place) for m in self.vocabulary if bool(batch.present[m].any())}

    def _product(self, posteriors: dict[str, Gaussian], shown: dict[str, Tensor], by_trust: bool = False) -> Gaussian:
        """Product of the Gaussians of the ``shown`` modalities and the prior (Wu & Goodman 2018), (cells, latent) each.

        ``by_trust``: the precisions of cells that show several are brought to what the modalities are worth.  What an encoder
        says of its own certainty grows with its number of features (A549: 21,000 peaks claimed nine tenths of the latent,
        though their structure is hardly reliable).
        """
        several = torch.stack([shown[m] for m in posteriors], 1).sum(1) > 1
        weighted, precision = 0.0, 1.0  # type: float | Tensor, float | Tensor
        for m, (mean, log_variance) in posteriors.items():
            own = torch.exp(-log_variance) * shown[m][:, None].float()
            if by_trust:
                own = torch.where(several[:, None], own * self._discount(m), own)
            weighted, precision = weighted + own * mean, precision + own
        assert isinstance(weighted, Tensor) and isinstance(precision, Tensor)
        return weighted / precision, -torch.log(precision)

    def _discount(self, m: str) -> Tensor:
        """What the precisions of ``m`` are multiplied with: worth beside what is claimed, the highest is 1.

        Raised to ``trust``, since neither is all: the worth is that of the features as they are, and an encoder that learned
        from the other modality knows more (ATAC of the cortex: .56 of the types against .46 of its topics).
        """
        worth = {k: self.get_buffer(f"reliable_{k}") / self.get_buffer(f"precision_{k}") for k in self.vocabulary}
        return (worth[m] / torch.stack(list(worth.values())).max()) ** self.settings.trust

    def _remember(self, posteriors: dict[str, Gaussian], batch: Batch) -> None:
        for m, (_, log_variance) in posteriors.items():
            now = torch.exp(-log_variance.detach())[batch.present[m]].mean()
            self.get_buffer(f"precision_{m}").lerp_(now, MOMENTUM)

    def _shown(self, batch: Batch) -> dict[str, Tensor]:
        """In training some cells keep only one of their modalities, so that none is needed; (cells,) each."""
        if not self.training or not self.settings.hide:
            return batch.present
        names = list(self.vocabulary)
        there = torch.stack([batch.present[m] for m in names], 1)
        one = torch.multinomial(there.float() + 1e-9, 1)
        only = torch.zeros_like(there).scatter_(1, one, True) & there
        few = (torch.rand(len(batch), device=there.device) < self.settings.hide)[:, None]
        return dict(zip(names, torch.where(few, only, there).T, strict=True))

    # Training

    def _ramp(self) -> float:
        """Weight of the regularisers now: up from 0 over the first part of each cycle, then 1."""
        if not self.training:
            return 1.0
        epochs = float(self.get_buffer("seen") / self.get_buffer("cells"))
        turn = max(1.0, self.settings.epochs / self.settings.cycles)
        return min(1.0, (epochs % turn) / (WARM_UP * turn)) if epochs < self.settings.epochs else 1.0

    def running(self) -> list[Tensor]:
        return [self.get_buffer("seen"), *(self.get_buffer(f"precision_{m}") for m in self.vocabulary)]

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Reconstruction of every modality a cell has from those shown, divergence, similarity, invariance."""
        s, places = self.settings, self._places(batch)
        posteriors = self._posteriors(batch, places)
        mean, log_variance = self._product(posteriors, self._shown(batch))
        z = mean + torch.randn_like(mean) * (0.5 * log_variance).exp() if self.training else mean
        losses = {}
        for m in posteriors:
            has = batch.present[m]
            inputs = z, self._covariates(batch), self.depths.of(places[m], m)
            share = has * (len(self.vocabulary[m]) / len(batch))
            losses[m] = self.decoders[m].loss(inputs, batch, share)  # type: ignore[operator]
        ramp = self._ramp()
        divergence = 0.5 * (mean.square() + log_variance.exp() - log_variance - 1).sum(1).mean()
        losses["divergence"] = s.kl * ramp * divergence
        if s.mutual_information and len(batch) > 1:
            losses["mutual_information"] = s.mutual_information * ramp * mutual_information(mean, log_variance)
        if len(batch) > 1:
            losses |= self._structure(batch, places, posteriors, ramp)
        if self.training:
            self.get_buffer("seen").add_(len(batch))
            self._remember(posteriors, batch)
        return losses

    def _structure(
        self, batch: Batch, places: Places, posteriors: dict[str, Gaussian], ramp: float
    ) -> dict[str, Tensor]:
        """Losses over pairs: similar to the reference, jointly, alone and across modalities; depth not to be told."""
        s, found = self.settings, {}
        joint = self._product(posteriors, batch.present, by_trust=True)[0]
        reference, known = self._reference(batch, places)
        if s.similarity and int(known.sum()) > 1:
            (wanted, shared), trust = self._wanted(batch, places), self.depths.trusted(places[self.lead])
            pairs = trust[:, None] * trust[None] * shared * self._same_batch(batch)
            total = unlikeness(wanted, cosines(joint, joint), pairs)
            means = {m: (p[0], batch.present[m].float()) for m, p in posteriors.items()}
            for i, (a, has_a) in enumerate(means.values()):
                for b, has_b in list(means.values())[i:]:
                    total = total + unlikeness(wanted, cosines(a, b), pairs * has_a[:, None] * has_b[None])
            found["similarity"] = s.similarity * total
        if self.placing is not None:
            led = {m: places[m] for m in self._led_by()}
            found["placing"] = self.placing.loss(F.normalize(joint, dim=1), led, self._covariates(batch))
        if s.invariance:
            direction, terms = F.normalize(joint, dim=1), []
            for m in posteriors:
                mine = batch.present[m] & known
                terms.append(dependence(direction[mine], self.depths.beyond_group(places[m], m, reference)[mine]))
            found["invariance"] = s.invariance * ramp * torch.stack(terms).sum()
        return found

    def _same_batch(self, batch: Batch) -> Tensor | float:
        """1 for pairs of one batch: between batches the reference's similarity is that of the batches as well."""
        code = batch.extra.get(fields.BATCH_CODE)
        return 1.0 if code is None else (code[:, None] == code[None]).float()

    # Use

    def embed(self, batch: Batch) -> Tensor:
        """Where a cell stands in the reference, rows of length 1, (cells, width of the reference).

        ``place`` parts of where it was measured to stand, depth and batch taken out, the rest where the latent puts it; what was
        not measured is as the latent puts it.  Where the reference is an embedding of the file, which new cells need not have, or
        ``place`` is 0: the direction of the latent's mean, (cells, latent).  Its length, how much is known of a cell, is depth.
        """
        places = self._places(batch)
        posteriors = self._posteriors(batch, places)
        direction = torch.zeros(len(batch), self.settings.latent, device=batch.present[self.lead].device)
        if posteriors:
            direction = F.normalize(self._product(posteriors, batch.present, by_trust=True)[0], dim=1)
        if self.placing is None:
            return direction
        led = {m: places[m] for m in self._led_by()}
        embedded: Tensor = self.placing(direction, led, self._covariates(batch), self.settings.place)
        return embedded

    def weights(self, batch: Batch) -> Tensor:
        """Share of each modality in the cell's embedding, (cells, modalities): in its place, and in the latent's precision."""
        posteriors = self._posteriors(batch, self._places(batch))
        empty = torch.zeros(len(batch), self.settings.latent, device=batch.present[self.lead].device)
        factor = {m: self._discount(m) for m in self.vocabulary}
        own = [
            torch.exp(-posteriors[m][1]) * factor[m] * batch.present[m][:, None].float() if m in posteriors else empty
            for m in self.vocabulary
        ]
        precision = torch.stack(own, 2)
        latent = (precision / precision.sum(2, keepdim=True).clamp(min=1e-9)).mean(1)
        if self.placing is None:
            return latent
        shares = {m: self.settings.place * self.placing.share(m) for m in self.vocabulary}
        measured = torch.stack([shares[m] * batch.present[m].float() for m in self.vocabulary], 1)
        return measured + (1 - measured.sum(1, keepdim=True)) * latent

    def impute(self, batch: Batch, modality: str) -> Tensor:
        """Counts as log1p of the expected CP10k, which can be taken back to shares (a prediction, to be held against noisy
        measurements, is the expectation of their log).  Peaks are those of a cell of this depth: the unit is the probability
        that *this* cell shows the peak open.
        """
        places = self._places(batch)
        mean = self._product(self._posteriors(batch, places), batch.present)[0]
        kind, own = self.vocabulary[modality], self.settings.own
        if kind.likelihood != fields.NB:
            expected = self._decoded(mean, modality, self.depths.of(places[modality], modality))
            measured = (batch.values[modality] > 0).float() if kind.scale == fields.BINARY else batch.values[modality]
            return torch.lerp(expected, measured, own * batch.present[modality][:, None].float())
        counts = batch.counts[modality]
        shares = F.softmax(self._outputs(mean, modality) + self._head(modality).bias, 1)
        measured = counts / counts.sum(1, keepdim=True).clamp(min=1)
        part = own * (counts.sum(1, keepdim=True) > 0).float()
        return torch.log1p(CP * torch.lerp(shares, measured, part))

    def encode(self, batch: Batch, source: str) -> Tensor:
        posterior = self.encoders[source](batch, self._projection(source)(batch))
        return self._product({source: posterior}, batch.present)[0]

    def decode(self, latent: Tensor, source: str, target: str) -> Tensor:
        return self._decoded(latent, target)

    def predict(self, batch: Batch, source: str, target: str) -> Tensor:
        return self.decode(self.encode(batch, source), source, target)

    def _head(self, modality: str) -> Head:
        head = self.decoders[modality].head
        assert isinstance(head, Head)
        return head

    def _outputs(self, mean: Tensor, modality: str, depth: Tensor | None = None) -> Tensor:
        """Of the average batch, whichever the cell is of; ``depth``: see :class:`Decoder`."""
        width = 0 if self.vocabulary.batches is None else len(self.vocabulary.batches)
        average = torch.full((len(mean), width), 1 / max(width, 1), device=mean.device)
        outputs: Tensor = self.decoders[modality](mean, average, depth)
        return outputs

    def _decoded(self, mean: Tensor, modality: str, depth: Tensor | None = None) -> Tensor:
        expected: Tensor = self._head(modality).expected(self._outputs(mean, modality, depth))
        return expected


def log_depth(batch: Batch, m: str) -> Tensor:
    """log1p of the counts of modality ``m``, (cells,)."""
    return torch.log1p(batch.sparse[m].sums().clamp(min=0))


def leading(settings: SailerXSettings, vocabulary: Vocabulary) -> str:
    """The modality that leads, whose depth says how far the reference is to be trusted."""
    names = list(vocabulary)
    if settings.reference in names:
        return settings.reference
    if settings.reference != "auto" and not settings.reference.startswith(OBSM):
        raise SettingRefused(
            f"--set reference={settings.reference}: give auto, one of {', '.join(names)}, or {OBSM}KEY for an embedding "
            "of the file"
        )
    return fields.RNA if fields.RNA in names else names[0]
