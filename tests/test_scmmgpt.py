"""The model of cells and texts: what it learns, what it says of types it never saw, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import helpers_annotation as cells_of_types
from xmodal import fields
from xmodal.data.batches import Cells, cells_of
from xmodal.data.vocabulary import Labels, Modality, Reference, Vocabulary
from xmodal.errors import InputRefused, NotApplicable, SettingRefused
from xmodal.learning import checkpoint, training
from xmodal.models.parts import text_scores
from xmodal.models.parts.cell_encoders import components
from xmodal.models.parts.members import Members
from xmodal.models.parts.naming import folds
from xmodal.models.parts.text_scores import Course, Kernel
from xmodal.models.parts.type_places import LEAST_CELLS, SPHERE, TypePlaces, WithinTypes
from xmodal.models.scmmgpt import ScMMGPT, ScMMGPTSettings
from xmodal.text.bank import VIEWS, TextBank
from xmodal.text.ontology import PSEUDO, Ontology, Term

QUICK = {"epochs": 12, "members": 2, "folds": 2, "hidden": 16, "components": 8, "generator_passes": 0}
T = cells_of_types
SEEN = {name: term for name, term in T.TYPES.items() if term != T.CD8}  # CD8 T cells are new to the model


def bank_of(folder: Path) -> TextBank:
    """Texts whose vectors are alike where the terms' ancestors are."""
    known = T.small_ontology(folder)
    terms = {**known.terms, T.ODD: Term(T.ODD, T.ODD.removeprefix(PSEUDO))}
    whole = Ontology(terms, known.version, known.source)
    rng = np.random.default_rng(0)
    own = {t: rng.normal(size=16) for t in sorted(terms)}
    rows = [sum(own[a] for a in whole.ancestors(t, itself=True)) for t in whole.live]
    rows = np.stack([r / np.linalg.norm(r) for r in rows]).astype(np.float16).astype(np.float32)
    return TextBank(whole, whole.live, {v: rows for v in VIEWS}, {"name": "tests", "digest": "0"})


@pytest.fixture(scope="module")
def some(tmp_path_factory: pytest.TempPathFactory) -> Cells:
    """60 cells of each type; those of CD8 T cells have no code."""
    adata = T.cells(60)
    vocabulary = Vocabulary(
        {"rna": Modality("rna", fields.NB, fields.LOG_CP10K, tuple(adata.var_names))},
        labels=Labels("cell_type", tuple(sorted(SEEN)), tuple(SEEN[n] for n in sorted(SEEN))),
        texts=bank_of(tmp_path_factory.mktemp("bank")),
    )
    return cells_of(T.as_mudata(adata), vocabulary)


def parts(cells: Cells) -> tuple[Cells, Cells]:
    """Two thirds to train on, a third to choose by."""
    third = np.arange(len(cells)) % 3 == 0
    return cells.subset(np.flatnonzero(~third)), cells.subset(np.flatnonzero(third))


def fitted(cells: Cells, **changes: object) -> ScMMGPT:
    torch.manual_seed(0)
    model = ScMMGPT.build(ScMMGPTSettings(**{**QUICK, **changes}), cells.vocabulary)
    training.fit(model, *parts(cells), torch.device("cpu"))
    return model.eval()


@pytest.fixture(scope="module")
def model(some: Cells) -> ScMMGPT:
    return fitted(some)


def scored(model: ScMMGPT, cells: Cells, candidates: tuple[str, ...]) -> np.ndarray:
    with torch.no_grad():
        return model.scores(cells.batch(slice(None)), candidates).softmax(1).numpy()


def truth(cells: Cells) -> np.ndarray:
    return np.repeat(list(T.TYPES.values()), 60)


def test_names_the_types_it_saw(model: ScMMGPT, some: Cells) -> None:
    known = truth(some) != T.CD8
    found = np.array(model.seen)[scored(model, some, model.seen).argmax(1)]
    assert (found == truth(some))[known].mean() > 0.97
    assert T.CD8 not in model.seen and T.ODD in model.seen


def test_names_a_type_it_never_saw_where_that_is_a_candidate(model: ScMMGPT, some: Cells) -> None:
    new = truth(some) == T.CD8
    candidates = (T.CD8, *model.seen)
    ahead = scored(model, some, candidates)[:, 0]
    others = ~new & (truth(some) != T.CD4)
    assert ahead[new].mean() > 5 * ahead[others].mean()
    alone = np.array([T.CD8, T.NEURON])[scored(model, some, (T.CD8, T.T_CELL)).argmax(1)]
    assert len(alone) == len(some)


def test_candidates_that_are_all_new_or_more_than_the_known_ones(model: ScMMGPT, some: Cells) -> None:
    new = (T.CD8, T.T_CELL, T.LYMPHOCYTE)
    assert scored(model, some, new).shape == (len(some), 3)
    every = tuple(i for i in model.bank.ids if i != "CL:0000000")
    shares = scored(model, some, every)
    assert np.allclose(shares.sum(1), 1, atol=1e-4) and np.isfinite(shares).all()
    known = truth(some) != T.CD8
    best = np.array(every)[shares.argmax(1)]
    assert (best == truth(some))[known].mean() > 0.8


def test_scores_do_not_depend_on_the_other_cells(model: ScMMGPT, some: Cells) -> None:
    whole = scored(model, some, model.seen)
    assert np.allclose(whole[:5], scored(model, some.subset(np.arange(5)), model.seen), atol=1e-5)


def test_cells_of_no_known_type_are_less_familiar(model: ScMMGPT, some: Cells) -> None:
    strange = some.subset(np.arange(60))
    rng = np.random.default_rng(1)
    counts = strange.counts["rna"].toarray()
    rng.shuffle(counts, axis=1)  # genes of all types at once
    strange = replace(strange, counts={"rna": type(strange.counts["rna"])(counts)})
    with torch.no_grad():
        usual, odd = (model.known(c.batch(slice(None))).numpy() for c in (some, strange))
    assert odd.min() >= 0 and usual.max() <= 1
    limit = model.thresholds()["reject"]
    assert (usual[truth(some) != T.CD8] < limit).mean() < 0.2 < 0.6 < (odd < limit).mean()


def test_genes_of_a_type_make_its_call(model: ScMMGPT, some: Cells) -> None:
    neurons = some.subset(np.flatnonzero(truth(some) == T.NEURON))
    share = model.explain(neurons.batch(slice(None)), model.seen)
    assert share.shape == (60, T.GENES)
    own = list(T.TYPES.values()).index(T.NEURON) * T.PER_TYPE
    best = set(share.mean(0).argsort(descending=True)[: T.PER_TYPE].tolist())
    assert len(best & set(range(own, own + T.PER_TYPE))) >= T.PER_TYPE - 1


def test_cells_and_texts_share_a_space(model: ScMMGPT, some: Cells) -> None:
    with torch.no_grad():
        at = model.embed(some.batch(slice(None)))
        texts = model.text_projection(model.get_buffer("texts"))
    assert at.shape[1] == texts.shape[1]
    assert torch.allclose(at.norm(dim=1), torch.ones(len(some)), atol=1e-4)
    known = truth(some) != T.CD8
    nearest = np.array(model.classes)[(at @ texts.T).argmax(1).numpy()]
    assert (nearest == truth(some))[known].mean() > 0.8


def test_a_checkpoint_gives_the_same_scores(model: ScMMGPT, some: Cells, tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "m.safetensors", model, {"directions": []}, {})
    loaded = checkpoint.load(tmp_path / "m.safetensors").model
    candidates = (T.CD8, *model.seen)
    assert np.array_equal(scored(model, some, candidates), scored(loaded, some, candidates))
    assert loaded.thresholds() == model.thresholds()


def test_equal_seeds_give_equal_weights(some: Cells, model: ScMMGPT) -> None:
    again = fitted(some)
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize("kind", ["mlp", "qformer"])
def test_trained_projectors(some: Cells, kind: str) -> None:
    found = fitted(some, projector=kind, matching=0.1, captioning=0.1)
    names = np.array(found.seen)[scored(found, some, found.seen).argmax(1)]
    known = truth(some) != T.CD8
    assert (names == truth(some))[known].mean() > 0.95
    assert np.isfinite(scored(found, some, (T.CD8, *found.seen))).all()
    with torch.no_grad():
        assert found.text_projection(found.get_buffer("texts")).shape == (len(found.classes), found.members.width)


def test_tokens_as_cell_encoder(some: Cells) -> None:
    size = {"tokens": 32, "latents": 4, "width": 16, "layers": 1, "heads": 2}
    found = fitted(some, cell_model="builtin", epochs=2, **size)
    assert np.isfinite(scored(found, some, found.seen)).all()


def test_an_embedding_as_cell_encoder(some: Cells) -> None:
    place = np.array([list(T.TYPES.values()).index(t) for t in truth(some)])
    rng = np.random.default_rng(0)
    given = (np.eye(len(T.TYPES))[place] + 0.1 * rng.normal(size=(len(place), len(T.TYPES)))).astype(np.float32)
    vocabulary = replace(some.vocabulary, reference=Reference("X_given", given.shape[1]))
    cells = replace(some, vocabulary=vocabulary, extra={**some.extra, fields.REFERENCE: given})
    found = fitted(cells, cell_model="obsm:X_given", genes=0)
    known = truth(some) != T.CD8
    names = np.array(found.seen)[scored(found, cells, found.seen).argmax(1)]
    assert (names == truth(some))[known].mean() > 0.97
    with pytest.raises(NotApplicable, match="reads no genes"):
        found.explain(cells.batch(slice(None)), found.seen)
    lacking = replace(cells, extra={**cells.extra, fields.REFERENCE: np.full_like(given, np.nan)})
    with pytest.raises(InputRefused, match="X_given"):
        scored(found, lacking, found.seen)


def test_refuses_another_cell_model_and_no_labels(some: Cells) -> None:
    with pytest.raises(SettingRefused, match="builtin-mlp"):
        ScMMGPT.build(ScMMGPTSettings(cell_model="large"), some.vocabulary)
    with pytest.raises(InputRefused, match="--label-key"):
        ScMMGPT.build(ScMMGPTSettings(), replace(some.vocabulary, labels=None))


def test_types_of_which_there_are_no_cells_are_not_seen(some: Cells) -> None:
    there = truth(some) != T.NEURON
    found = fitted(some.subset(np.flatnonzero(there)))
    assert T.NEURON not in found.seen and T.NEURON in found.classes
    assert np.isfinite(scored(found, some, (*found.seen, T.NEURON))).all()


def test_few_types_leave_none_out(some: Cells) -> None:
    few = {n: t for n, t in SEEN.items() if t in (T.CD4, T.B, T.MONOCYTE)}
    labels = Labels("cell_type", tuple(sorted(few)), tuple(few[n] for n in sorted(few)))
    codes = np.array([labels.classes.index(t) if t in labels.classes else -1 for t in truth(some)], np.int64)
    vocabulary = replace(some.vocabulary, labels=labels)
    found = fitted(replace(some, vocabulary=vocabulary, extra={fields.LABEL_CODE: codes}))
    assert found.members.groups == 1 and found.thresholds()["penalty"] == 0
    labelled = codes >= 0
    with torch.no_grad():
        called = found.read(some.batch(np.flatnonzero(labelled))).logits.mean(0).argmax(1)
    assert found.members.taught.all() and (called.numpy() == codes[labelled]).mean() > 0.9
    assert scored(found, some, (*found.seen, T.NEURON)).shape == (len(some), 4)


def test_kin_by_texts_and_ancestors(some: Cells) -> None:
    bank = some.vocabulary.texts
    assert bank is not None
    kernel = Kernel.of(bank, (T.CD4, T.CD8, T.NEURON))
    like = kernel.like(kernel)
    assert torch.allclose(like.diagonal(), torch.ones(3), atol=1e-5) and like[0, 1] > like[0, 2]
    targets = kernel.targets(0.1)
    assert torch.allclose(targets.sum(1), torch.ones(3)) and targets[0, 0] == pytest.approx(0.9)
    assert targets[0, 1] > targets[0, 2]


def test_course_of_a_penalty() -> None:
    """Two seen types and a new one: without a penalty none of its cells are found, with a great one all."""
    scores = np.array([[3.0, 0, 1], [0, 3, 1], [2, 0, 1.5], [2, 0, 0.5]])
    course = Course.of(scores, np.array([0, 1, 2, 2]), np.array([True, True, False]))
    assert course.at(0.0) == (1.0, 0.0) and course.at(0.6) == (1.0, 0.5)
    assert course.at(1.6) == (1.0, 1.0) and course.at(9.0) == (0.0, 1.0)
    assert course.area == pytest.approx(1.0)
    assert 1.5 <= text_scores.best_penalty([course]) < 2.0


def test_small_types_are_drawn_to_their_texts(some: Cells) -> None:
    like = torch.eye(3)
    codes = torch.tensor([0] * 30 + [1] * 30 + [2] * 4)
    place = torch.nn.functional.one_hot(codes, 3).float()
    places = TypePlaces(3, 3)
    places.fit(place, codes, like)
    mean = places.standard(place[codes == 2]).mean(0)
    own = (places.get_buffer("centres")[2] - mean).norm()
    assert own > 0.1 and LEAST_CELLS > 4
    assert torch.allclose(places.get_buffer("centres")[0], places.standard(place[codes == 0]).mean(0), atol=1e-5)


def test_cells_of_a_type_spread_alike_in_all_directions() -> None:
    """Along the direction in which types spread most, a distance counts least."""
    codes = torch.tensor([0, 1]).repeat_interleave(500)
    noise = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([3.0, 1.0])
    within = WithinTypes(2).fit(noise + 50.0 * codes[:, None], codes)
    lengths = within(torch.eye(2)).square().sum(1)
    expected = [1 / ((1 - SPHERE) * v + SPHERE * 5) for v in (9, 1)]
    assert lengths.tolist() == pytest.approx(expected, rel=0.15)
    assert torch.isfinite(WithinTypes(2).fit(torch.zeros(4, 2), torch.tensor([0, 0, 3, 3])).get_buffer("turned")).all()


def test_the_gate_decides_between_old_and_new(model: ScMMGPT, some: Cells) -> None:
    """However many new candidates there are, the best of them stands against the best known type."""
    candidates = (T.CD8, T.NEURON, *(t for t in model.seen if t != T.NEURON))
    shares = scored(model, some, candidates)
    split = scored(model, some, (*candidates, T.T_CELL))
    assert np.allclose(shares.sum(1), 1, atol=1e-4) and np.allclose(split.sum(1), 1, atol=1e-4)
    far = split[:, -1] < split[:, 0]  # T cell is no nearer than CD8 T cell: nothing changes among the others
    assert (shares[far].argmax(1) == split[far].argmax(1)).all()


def test_groups_are_not_taught_their_fold() -> None:
    torch.manual_seed(0)
    members = Members((4, 8, 6), groups=3, each=2, dropout=0.0)
    size = torch.tensor([5, 5, 5, 0, 5, 5])
    fold = folds(size, 2)
    assert fold[3] == -1 and sorted(fold[size > 0].tolist()) == [0, 0, 0, 1, 1]
    members.leave_out(fold, size > 0)
    assert members.taught.shape == (6, 6) and bool(members.taught[0, size > 0].all()) and not members.taught[0, 3]
    out = int((fold == 0).nonzero()[0])
    assert not members.taught[2:4, out].any() and members.taught[4:6, out].all()
    codes = torch.full((7,), out)
    members.loss(members.logits(members.hidden(torch.randn(7, 4))), codes, torch.eye(6)).backward()
    assert not members.first.grad[2:4].any() and members.first.grad[:2].any()


def test_components_are_those_of_a_decomposition() -> None:
    rng = np.random.default_rng(0)
    matrix = (rng.normal(size=(200, 12)) * np.linspace(5, 0.5, 12)).astype(np.float32)
    axes = components(lambda: iter([torch.from_numpy(matrix[:90]), torch.from_numpy(matrix[90:])]), 12, 3)
    right = np.linalg.svd(matrix, full_matrices=False)[2][:3].T
    assert np.allclose(np.abs(np.sum(axes.numpy() * right, 0)), 1, atol=1e-3)
