"""Cells and what is written of their types, in one space (after scMMGPT): names cells, also with types it saw no cell of.

A cell is read as principal components of its genes (or an embedding, or its genes as tokens), an ensemble of small networks
learns its type from it, and what their hidden layers say is the joint space.  A type lies where its cells do; one without cells
lies where its text and its place in the ontology put it.  Beside that, a linear model of the genes tells the known types apart.

What differs from the paper, and why: docs/models.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from xmodal import fields
from xmodal.errors import InputRefused, NotApplicable
from xmodal.models.base import CrossModalModel, ModelSettings
from xmodal.models.parts import naming
from xmodal.models.parts.cell_encoders import EMBEDDING, Genes, cell_encoder
from xmodal.models.parts.generator import GeneratorSettings, TextGenerator
from xmodal.models.parts.known_texts import KnownTexts
from xmodal.models.parts.members import Members, side_by_side
from xmodal.models.parts.perceiver import PerceiverSettings
from xmodal.models.parts.projectors import Captioning, Matching, projector, tokens_of
from xmodal.models.parts.text_scores import DEFINITION, SHARP, Kernel
from xmodal.models.parts.type_places import TypePlaces, WithinTypes

if TYPE_CHECKING:
    from xmodal.data.batches import Batch, Cells
    from xmodal.data.vocabulary import Vocabulary
    from xmodal.text.bank import TextBank

FEWEST, STEPS = 32, 40  # cells of a minibatch at least, minibatches of an epoch where there are few cells
GENES_SLOWER = 0.1  # learning rate of the genes' weights, which are small: of the networks' one
FEWEST_TO_BALANCE = 5  # cells; a type of fewer counts as if it had these
LEAST_TYPES = 6  # below it no types can be left out


class ScMMGPTSettings(GeneratorSettings, PerceiverSettings):
    epochs: int = Field(40, ge=0, description="Epochs to train.")
    batch_size: int = Field(256, ge=8, description="Most cells in a minibatch.")
    learning_rate: float = Field(0.003, gt=0, description="Highest learning rate of AdamW.")
    weight_decay: float = Field(0.01, ge=0, description="Weight decay (decoupled, as in AdamW).")
    patience: int = Field(1000, ge=1, description="Epochs without a better validation loss before training stops.")
    schedule: Literal["plateau", "onecycle"] = Field("onecycle", description="Course of the learning rate.")
    cell_model: str = Field(
        "builtin-mlp",
        description="What is read of a cell: builtin-mlp (principal components), builtin (genes as tokens), obsm:KEY, or a "
        "foundation model on disk, scgpt:DIR or geneformer:DIR.",
    )
    components: int = Field(30, ge=2, description="Principal components of the genes.")
    hidden: int = Field(128, ge=4, description="Width of a member's hidden layer.")
    members: int = Field(4, ge=1, description="Networks in the ensemble.")
    folds: int = Field(5, ge=0, description="Further ensembles that are not taught a part of the types; 0: none.")
    dropout: float = Field(0.3, ge=0, lt=1, description="Dropout of the hidden layer.")
    genes: float = Field(
        0.34,
        ge=0,
        le=1,
        description="Weight of the linear model of genes among types seen; place and networks share the rest.",
    )
    gene_penalty: float = Field(0.3, ge=0, description="Weight of the squared coefficients of that model.")
    kin: float = Field(0.05, ge=0, lt=1, description="Share of the right type that its kin of the ontology get.")
    projector: Literal["ridge", "mlp", "qformer"] = Field(
        "ridge", description="From texts to cells: kernel ridge regression, or a network that is trained."
    )
    alignment: float = Field(1.0, ge=0, description="Weight of cells to texts, where the projector is trained.")
    matching: float = Field(0.0, ge=0, description="Weight of telling a cell's text from a wrong one that is alike.")
    captioning: float = Field(0.0, ge=0, description="Weight of the text's vector predicted from the cell.")
    reject: float = Field(0.05, gt=0, lt=1, description="Share of the known cells that may count as of no known type.")

    def minibatch(self, cells: int) -> int:
        """Smaller ones of few cells, so that an epoch has steps enough."""
        return max(min(self.batch_size, FEWEST), min(self.batch_size, cells // STEPS))


@dataclass(frozen=True)
class Read:
    """A minibatch as the model sees it: z-scores of the genes, what the encoder makes of them, the joint space, logits."""

    scores: Tensor  # (cells, genes)
    inputs: Tensor  # (cells, encoder's width)
    at: Tensor  # (cells, width), standardised
    logits: Tensor  # (members, cells, types)


class ScMMGPT(CrossModalModel):
    """Cells and texts in one space."""

    name = "scmmgpt"
    summary = "scMMGPT: cells and the texts of their types in one space; names, describes and generates cells."
    source = "scMMGPT, arXiv:2503.09427"
    Settings = ScMMGPTSettings
    has_latent = True
    reference_in_use = True
    takes_labels = True
    only = fields.RNA
    min_cells = 50
    settings: ScMMGPTSettings

    def __init__(self, settings: ScMMGPTSettings, vocabulary: Vocabulary) -> None:
        super().__init__(settings, vocabulary)
        types, genes = len(self.classes), vocabulary[fields.RNA]
        self.genes = Genes(genes, settings.components)
        self.encoder = cell_encoder(settings, vocabulary, self.genes)
        self.members = Members(
            (self.encoder.width, settings.hidden, types), 1 + self._folds(types), settings.members, settings.dropout
        )
        self.linear = nn.Linear(len(genes), types)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        self.places = TypePlaces(types, self.members.width)
        self.within = WithinTypes(self.encoder.width)
        self.around = TypePlaces(types, self.encoder.width)  # of what the encoder makes of cells, by `within`
        self.register_buffer("balance", torch.ones(types))  # weight of a type's cells in the linear model
        self.register_buffer("chosen", torch.tensor([0.0, 1.0, 1.0]))  # penalty, slope of the gate, temperature
        self.register_buffer(
            "doubt", torch.tensor([0.0, 1.0])
        )  # of the sum of the signals: where to reject, its spread
        self.register_buffer("signal", torch.tensor([[0.0] * naming.SIGNALS, [1.0] * naming.SIGNALS]))
        self._add_texts()
        self._fitted: Cells | None = None  # training cells, until finish
        self._beyond: tuple[tuple[str, ...], Tensor] | None = None

    def _add_texts(self) -> None:
        """What is made of the texts alone: buffers that a checkpoint need not hold, and the parts trained on them."""
        s, width = self.settings, self.bank.width
        self.kernel = Kernel.of(self.bank, self.classes)
        self.register_buffer("likeness", self.kernel.like(self.kernel), persistent=False)
        self.register_buffer("targets", self.kernel.targets(s.kin), persistent=False)
        self.register_buffer("tokens", tokens_of(self.bank, self.classes), persistent=False)
        texts = torch.from_numpy(self.bank.embeddings[DEFINITION][self.bank.rows(self.classes)])
        self.register_buffer("texts", texts, persistent=False)
        self.projector = projector(s.projector, width, self.members.groups * self.members.width)
        self.matching = Matching(self.members.width, width) if s.matching else None
        self.captioning = Captioning(self.members.width, width) if s.captioning else None
        known = KnownTexts.of(self.bank, self.classes)
        genes = len(self.vocabulary[fields.RNA])
        self.generator = TextGenerator(genes, known, s) if s.generator_passes else None

    @classmethod
    def reference_key(cls, settings: ModelSettings) -> str | None:
        assert isinstance(settings, ScMMGPTSettings)
        return settings.cell_model.removeprefix(EMBEDDING) if settings.cell_model.startswith(EMBEDDING) else None

    @property
    def bank(self) -> TextBank:
        if self.vocabulary.texts is None or self.vocabulary.labels is None:
            raise InputRefused(
                "this model learns what cells are called, and no labels are given", do="give --label-key"
            )
        return self.vocabulary.texts

    @property
    def classes(self) -> tuple[str, ...]:
        """Ids of the types, in the order of their codes."""
        assert self.bank is not None and self.vocabulary.labels is not None
        return self.vocabulary.labels.classes

    @property
    def seen(self) -> tuple[str, ...]:
        """The types that cells were trained on."""
        known = self.places.get_buffer("known").tolist()
        return tuple(c for c, k in zip(self.classes, known, strict=True) if k)

    def thresholds(self) -> dict[str, float]:
        """``reject``: of :meth:`known`; ``penalty``: on types seen, in units of nearness; ``temperature``: of their logits."""
        penalty, _, temperature = self.get_buffer("chosen").tolist()
        return {"reject": 0.5, "penalty": penalty, "temperature": temperature}

    def _folds(self, types: int) -> int:
        return min(self.settings.folds, types // 2) if types >= LEAST_TYPES else 0

    def directions(self) -> list[tuple[str, str]]:
        return []

    def parameter_groups(self, rate: float) -> list[dict[str, Any]]:
        own = list(self.linear.parameters())
        others = [p for p in self.parameters() if not any(p is q for q in own)]
        return [{"params": others, "lr": rate}, {"params": own, "lr": rate * GENES_SLOWER, "weight_decay": 0.0}]

    def running(self) -> list[Tensor]:
        return [] if self.generator is None else self.generator.running()

    # Training

    @torch.no_grad()
    def prepare(self, cells: Cells) -> None:
        self.genes.prepare(cells)
        self.encoder.prepare(cells)
        codes = torch.from_numpy(cells.extra[fields.LABEL_CODE])
        size = torch.bincount(codes[codes >= 0], minlength=len(self.classes))
        weight = 1 / size.clamp(min=FEWEST_TO_BALANCE)
        self.get_buffer("balance").copy_(weight * size.sum() / (weight * size).sum().clamp(min=1e-9))
        self.members.leave_out(naming.folds(size, self.members.groups - 1), size > 0)
        if self.generator is not None:
            self.generator.prepare(cells.counts[fields.RNA], cells.extra[fields.LABEL_CODE])
        self._fitted = cells

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Types by members (kin as soft positives), types by genes, texts where they are trained, generated counts."""
        codes = batch.extra[fields.LABEL_CODE]
        labelled = (codes >= 0).nonzero().ravel()
        if not len(labelled):
            return {}
        if len(labelled) < len(batch):
            batch, codes = batch.rows(labelled), codes[labelled]
        scores = self.genes.scores(self.genes.values(batch))
        hidden = self.members.hidden(self.encoder(batch, scores))
        found = {"types": self.members.loss(self.members.logits(hidden), codes, self.get_buffer("targets"))}
        if self.settings.genes:
            each = F.cross_entropy(self.linear(scores), codes, reduction="none")
            found["genes"] = (self.get_buffer("balance")[codes] * each).mean()
            found["genes"] = found["genes"] + self.settings.gene_penalty * self.linear.weight.square().sum()
        found |= self._text_losses(hidden, codes)
        if self.generator is not None:
            found |= self.generator.loss(batch.counts[fields.RNA], codes)
        return found

    def _text_losses(self, hidden: Tensor, codes: Tensor) -> dict[str, Tensor]:
        """``hidden`` (members, cells, hidden), ``codes`` (cells,)."""
        found = {}
        if self.projector is not None and self.settings.alignment:
            centres = self.projector(self.get_buffer("tokens")).view(len(self.classes), *hidden.shape[::2])
            square = torch.cdist(hidden, centres.transpose(0, 1)).square()  # (members, cells, types)
            own = square.gather(2, codes.expand(len(hidden), -1)[..., None]).mean((1, 2), keepdim=True).detach()
            logits = (-0.5 * SHARP * square / own.clamp(min=1e-6)).masked_fill(~self.members.taught[:, None], -30.0)
            found["alignment"] = self.settings.alignment * self.members.loss(logits, codes, self.get_buffer("targets"))
        place = side_by_side(hidden[: self.settings.members])
        texts = self.get_buffer("texts")
        if self.matching is not None:
            likeness = self.get_buffer("likeness")
            found["matching"] = self.settings.matching * self.matching.loss(place, codes, texts, likeness)
        if self.captioning is not None:
            found["captioning"] = self.settings.captioning * self.captioning.loss(place, codes, texts)
        return found

    @torch.no_grad()
    def finish(self, cells: Cells) -> None:
        """Centres of the types; penalty, temperature and threshold, by types left out and by validation cells."""
        assert self._fitted is not None, "prepare comes first"
        naming.finish(self, self._fitted, cells)
        if self.generator is not None:
            self.generator.finish()
        self._fitted = None

    # In use

    def read(self, batch: Batch) -> Read:
        """``batch`` as the first ensemble sees it."""
        return self._read(batch, self.genes.values(batch))

    def _read(self, batch: Batch, values: Tensor) -> Read:
        scores = self.genes.scores(values)
        inputs = self.encoder(batch, scores)
        hidden = self.members.hidden(inputs, 0)
        at = self.places.standard(side_by_side(hidden))
        return Read(scores, inputs, at, self.members.logits(hidden, 0))

    def embed(self, batch: Batch) -> Tensor:
        at = F.normalize(self.read(batch).at, dim=1)
        return at * batch.present[fields.RNA][:, None]

    def text_projection(self, embedding: Tensor) -> Tensor:
        """Vectors of any texts, (texts, text width), in the joint space, (texts, width), rows of length 1."""
        texts = F.normalize(embedding, dim=1)
        own = F.normalize(self.get_buffer("texts"), dim=1)
        if self.projector is None:
            return F.normalize(self.places.beyond(texts @ own.T, own @ own.T), dim=1)
        return F.normalize(self._projected(texts[:, None]), dim=1)

    def _projected(self, tokens: Tensor) -> Tensor:
        """What the trained projector makes of texts, (texts, width)."""
        assert self.projector is not None
        first: Tensor = self.projector(tokens)[:, : self.members.width]
        return self.places.standard(first)

    def beyond(self, terms: Sequence[str]) -> Tensor:
        """Where types without cells lie, as :meth:`_beside` sees cells, (terms, width); kept for the next minibatch."""
        asked, device = tuple(terms), self.get_buffer("likeness").device
        if self._beyond is None or self._beyond[0] != asked or self._beyond[1].device != device:
            if self.projector is None:
                towards = Kernel.of(self.bank, asked).like(self.kernel).to(device)
                found = self.around.beyond(towards, self.get_buffer("likeness"))
            else:
                found = self._projected(tokens_of(self.bank, asked).to(device))
            self._beyond = asked, found
        return self._beyond[1]

    def _beside(self, read: Read) -> tuple[TypePlaces, Tensor]:
        """The types' places and the cells' (cells, width), by which types without cells are told from those with.

        Networks that were taught few types say little of others: their inputs say more.  A trained projector knows the networks.
        """
        if self.projector is not None:
            return self.places, read.at
        return self.around, self.around.standard(self.within(read.inputs))

    def guessed(self, group: int, out: Tensor, places: TypePlaces) -> Tensor:
        """Where the types ``out`` (types,) lie to a group that was not taught them; ``places``: of that group."""
        if self.projector is None:
            likeness = self.get_buffer("likeness")
            return places.beyond(likeness[out], likeness)
        width = self.members.width
        every: Tensor = self.projector(self.get_buffer("tokens")[out])
        return places.standard(every[:, group * width : (group + 1) * width])

    def named(self, read: Read) -> Tensor:
        """Log probabilities of the types by place, by the members and by genes, not yet calibrated, (cells, types)."""
        known = self.places.get_buffer("known")
        others = (1 - self.settings.genes) / 2
        parts = [(others, SHARP * self.places.nearness(read.at)), (others, read.logits.log_softmax(-1).mean(0))]
        if self.settings.genes:
            parts.append((self.settings.genes, self.linear(read.scores)))
        mixed = sum((w * x.masked_fill(~known, -torch.inf).log_softmax(1) for w, x in parts), torch.zeros(()))
        return torch.where(known, mixed, -torch.inf)

    def scores(self, batch: Batch, candidates: Sequence[str]) -> Tensor:
        """Calibrated logits of ids of the bank, (cells, candidates); the penalty on types seen is in them."""
        return self._scores(self.read(batch), batch, candidates)

    def _scores(self, read: Read, batch: Batch, candidates: Sequence[str]) -> Tensor:
        known = set(self.seen)
        place = {c: i for i, c in enumerate(self.classes)}
        old = [i for i, c in enumerate(candidates) if c in known]
        new = [i for i, c in enumerate(candidates) if c not in known]
        codes = [place[candidates[i]] for i in old]
        named = self.named(read)[:, codes] / self.get_buffer("chosen")[2]
        if not new:
            return named.log_softmax(1) if old else named
        places, at = self._beside(read)
        far = places.nearness(at, self.beyond([candidates[i] for i in new]))
        if not old:
            return SHARP * far
        gate = self._gate(read, batch, places.nearness(at)[:, codes].amax(1) - far.amax(1), len(new))[:, None]
        out = torch.empty(len(batch), len(candidates), device=far.device)
        out[:, old] = (
            gate + named - named.amax(1, keepdim=True)
        )  # the best of the old over the best of the new: the gate
        out[:, new] = SHARP * (far - far.amax(1, keepdim=True))
        return out.log_softmax(1)

    def _gate(self, read: Read, batch: Batch, ahead: Tensor, new: int) -> Tensor:
        """Log odds that a cell is of a type seen, (cells,); ``ahead``: by how much the nearest of these is nearer.

        Where there are more new candidates than types seen, one of them lies near any cell, and what counts is whether the cell
        is like those that were trained on.
        """
        penalty, slope, _ = self.get_buffer("chosen")
        return slope * (ahead - penalty) if new <= len(self.seen) else self._familiarity(read, batch)

    def _familiarity(self, read: Read, batch: Batch) -> Tensor:
        return naming.familiarity(self, read, self.genes.leftover(read.scores, batch))

    def known(self, batch: Batch) -> Tensor:
        """0 to 1: high where a cell is of a type trained on, below .5 where it is less like them than nearly all of these."""
        return torch.sigmoid(self._familiarity(self.read(batch), batch))

    def explain(self, batch: Batch, candidates: Sequence[str]) -> Tensor:
        """What the genes of a cell add to the best candidate's logit, (cells, genes): gradient x value above the mean cell's.

        Beside a cell without counts those would lead that every cell has; what a cell has not adds nothing.
        """
        if self.settings.cell_model.startswith(EMBEDDING) and not self.settings.genes:
            raise NotApplicable("a model of an embedding alone reads no genes; train it with --set genes=0.34")
        values = self.genes.values(batch).detach().clone().requires_grad_(True)
        with torch.set_grad_enabled(True):
            logits = self._scores(self._read(batch, values), batch, candidates)
            best = logits.gather(1, logits.argmax(1, keepdim=True)).sum()
            (gradient,) = torch.autograd.grad(best, values)
        above = values.detach() - self.genes.get_buffer("mean")
        return torch.where(values.detach() > 0, gradient * above, 0.0)
