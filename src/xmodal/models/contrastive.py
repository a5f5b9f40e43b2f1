"""Encoders of single modalities that learn first alone and then from each other, by contrast (InfoNCE).

A cell's own other modality is what its latent shall be found by, among the other cells of the minibatch; two views of one
modality with different features hidden shall be found by each other as well.  What only one modality tells has no place
in the latent; what both tell, in whatever form, has.  A second head may learn which cells are of one kind: of the same or a
near term of the Cell Ontology, where the training cells have labels, else of one cluster.  It reads the latents and does not
change them: learned together, kinds made predictions and matching worse (benchmarks/RESULTS.md).
"""

from __future__ import annotations

from itertools import combinations, combinations_with_replacement
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from xmodal import fields
from xmodal.data.batches import Batch, Cells
from xmodal.fusion.contrast import info_nce, near_as
from xmodal.fusion.fused import Fused, FusedSettings
from xmodal.fusion.groups import Clusters, kin_of_labels, kinship
from xmodal.fusion.hiding import Present, mean_of
from xmodal.models.base import ModelSettings

if TYPE_CHECKING:
    from xmodal.data.vocabulary import Vocabulary

IDENTITY, CLUSTERS, ONTOLOGY = "identity", "clusters", "ontology"


class ContrastiveSettings(FusedSettings):
    learning_rate: float = Field(0.004, gt=0, description="Highest learning rate of AdamW.")
    encoder_layers: int = Field(2, ge=1, description="Hidden layers of an encoder.")
    latent: int = Field(64, ge=2, description="Dimensions of the latent.")
    between: float = Field(0.03, ge=0, description="Weight of the contrast between modalities of a cell.")
    within: float = Field(0.0, ge=0, description="Weight of the contrast between two views of one modality.")
    temperature: float = Field(0.2, gt=0, description="Temperature of the contrasts; small: near cells are told apart.")
    alone: float = Field(
        0.1, ge=0, lt=1, description="Share of the epochs in which every encoder learns from its own modality only."
    )
    positives: Literal["identity", "clusters", "ontology"] = Field(
        "identity",
        description="What is alike: a cell's own modalities; cells of a cluster, too; of a label (clusters without any).",
    )
    kinds: int = Field(16, ge=1, description="Dimensions of the second head, where it learns kinds of cells.")
    kind: float = Field(0.1, ge=0, description="Weight of the second head's contrast.")
    kind_share: float = Field(2.0, ge=0, description="Length of the second head in the embedding; the first has 1.")
    near: float = Field(
        0.3, ge=0, lt=1, description="How far terms one edge of the ontology apart are alike; n edges: to the power n."
    )
    alike: float = Field(
        1.0, ge=0, le=1, description="Share of negatives that cells of one kind are for each other in the first head."
    )
    clusters: int = Field(12, ge=2, description="Clusters that stand for kinds of cells without labels.")


class Contrastive(Fused):
    """Contrastive alignment of the modalities."""

    name = "contrastive"
    summary = "Contrastive: encoders aligned so that a cell finds itself in its other modality; predicts any from any."
    source = "InfoNCE (van den Oord et al. 2018) between modalities, as in CLIP"
    Settings = ContrastiveSettings
    settings: ContrastiveSettings
    found: Clusters | None = None
    kinship: Tensor | None = None

    @classmethod
    def may_learn_labels(cls, settings: ModelSettings) -> bool:
        assert isinstance(settings, ContrastiveSettings)
        return settings.positives == ONTOLOGY

    def __init__(self, settings: ContrastiveSettings, vocabulary: Vocabulary) -> None:
        super().__init__(settings, vocabulary)
        self.kinds = nn.ModuleDict()
        for m in vocabulary if settings.positives != IDENTITY else ():
            self.kinds[m] = nn.Sequential(
                nn.Linear(settings.latent, settings.hidden), nn.GELU(), nn.Linear(settings.hidden, settings.kinds)
            )

    def prepare(self, cells: Cells) -> None:
        super().prepare(cells)
        if self.settings.positives == ONTOLOGY and self.vocabulary.labels is not None:
            self.kinship = kinship(self.vocabulary.labels, self.settings.near)
        elif self.settings.positives != IDENTITY:
            self.found = Clusters(cells, self.settings.clusters)

    def fused_width(self) -> int:
        s = self.settings
        return s.latent + (s.kinds if s.positives != IDENTITY else 0)

    def fuse(self, latents: dict[str, Tensor], present: Present) -> Tensor:
        """The mean direction, of length 1; that of the second head beside it, shorter: (cells, latent + kinds)."""
        z = F.normalize(mean_of({m: F.normalize(x, dim=1) for m, x in latents.items()}, present), dim=1)
        if not self.kinds:
            return z
        kind = F.normalize(mean_of(self.of_kind(latents), present), dim=1)
        return torch.cat([z, self.settings.kind_share * kind], 1)

    def of_kind(self, latents: dict[str, Tensor]) -> dict[str, Tensor]:
        """The second head of each modality, of length 1, (cells, kinds)."""
        return {m: F.normalize(self.kinds[m](x.detach()), dim=1) for m, x in latents.items()}

    def decoded(self, z: Tensor, latents: dict[str, Tensor], shown: Present, modality: str) -> Tensor:
        return z[:, : self.settings.latent] * self.settings.latent**0.5

    def shared(self, batch: Batch) -> Tensor:
        """The first head alone: by which cells are matched."""
        return self.embed(batch)[:, : self.settings.latent]

    def hidden(self) -> float:
        return 1.0 if self.done() < self.settings.alone else self.settings.hide

    def taught(self, batch: Batch, shown: Present, modality: str) -> Tensor:
        """At first only the one modality that is shown: every encoder learns from its own features."""
        return shown[modality] if self.done() < self.settings.alone else batch.present[modality]

    def kin(self, batch: Batch) -> Tensor | None:
        """How far each two cells are of one kind, (cells, cells), 1 for a cell and itself; None where it is not learned."""
        if self.kinship is not None and fields.LABEL_CODE in batch.extra:
            return kin_of_labels(batch, self.kinship)
        return None if self.found is None else self.found.kin(batch)

    def further(self, batch: Batch, latents: dict[str, Tensor], z: Tensor) -> dict[str, Tensor]:
        s, terms = self.settings, {}
        if self.done() < s.alone:
            return {}
        kin = self.kin(batch)
        for a, b in combinations(self.vocabulary, 2):
            both = batch.present[a] & batch.present[b]
            if s.between and int(both.sum()) > 1:
                weights = None if kin is None else self.apart(kin[both][:, both])
                terms[f"{a}_{b}"] = s.between * info_nce(latents[a][both], latents[b][both], s.temperature, weights)
        for m in self.vocabulary if s.within and self.training else ():
            has = batch.present[m]
            if int(has.sum()) > 1:
                again = self.encoders[m](batch)
                weights = None if kin is None else self.apart(kin[has][:, has])
                terms[f"views_{m}"] = s.within * info_nce(latents[m][has], again[has], s.temperature, weights)
        return terms | (self.kinds_told(batch, latents, kin) if kin is not None and s.kind else {})

    def apart(self, kin: Tensor) -> Tensor | None:
        """Share of a negative that each two cells are for each other, (cells, cells)."""
        return None if self.settings.alike == 1 else torch.where(kin == 1, self.settings.alike, 1.0)

    def kinds_told(self, batch: Batch, latents: dict[str, Tensor], kin: Tensor) -> dict[str, Tensor]:
        """Cells of one kind near each other in the second head, within a modality and between them."""
        s, terms, second = self.settings, {}, self.of_kind(latents)
        alone = torch.eye(len(batch), device=kin.device)
        for a, b in combinations_with_replacement(self.vocabulary, 2):
            from_a, to_b = batch.present[a], batch.present[b]
            wanted = (kin - alone if a == b else kin)[from_a][:, to_b]
            if int(from_a.sum()) > 1 and int(to_b.sum()) > 1:
                term = near_as(second[a][from_a], second[b][to_b], wanted, s.temperature, own=a != b)
                if a != b:
                    term = 0.5 * (term + near_as(second[b][to_b], second[a][from_a], wanted.T, s.temperature))
                terms[f"kinds_{a}_{b}"] = s.kind * term
        return terms
