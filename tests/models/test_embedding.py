"""Embeddings of networks: given, kept, tied to the output; what a user may pass."""

from functools import partial

import numpy as np
import pytest
import torch

from probseq.distributions.emissions import Categorical, Normal
from probseq.errors import IncompatibleError, ParameterError, ShapeError
from probseq.models.base import Batch
from probseq.models.recurrent import RecurrentModel
from probseq.models.recurrent_embedding import Embedding, read_vectors

VECTORS = torch.tensor([[1.0, 2.0, -1.0], [0.5, 0.1, 0.2], [-1.0, 0.3, 2.0], [0.0, 1.0, -2.0]], dtype=torch.float64)
SOME = torch.where(torch.tensor([[True], [False], [True], [True]]), VECTORS, torch.nan)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def network(n_variables=1, **options):
    head = Categorical()
    return RecurrentModel(head, head.observation(n_variables, 4), "gru", 3, dtype=torch.float64, **options)


def codes(n_variables=1):
    x = torch.randint(0, 4, (5, 8, n_variables), generator=seeded()).double()
    return Batch(x, torch.ones_like(x, dtype=torch.bool), torch.full((5,), 8))


def table_of(embedding, piece):
    """The whole table (k, C + 1, size) of an embedding, row by row."""
    k, size = embedding.n_variables, embedding.size
    table = torch.empty(k, embedding.n_categories + 1, size, dtype=torch.float64)
    learnt = {int(c): i for i, c in enumerate(embedding.learnt)}
    for i in range(k):
        for c in range(embedding.n_categories):
            table[i, c] = piece[i, learnt[c]] if c in learnt else embedding.given[c]
        table[i, -1] = piece[i, -1]
    return table


def each_draw(draw):
    """Functions that choose one draw of a tensor each."""
    return [partial(torch.select, dim=0, index=d) for d in range(draw[0])] if draw else [lambda leaf: leaf]


@pytest.mark.parametrize(("given", "frozen"), [(None, False), (VECTORS, False), (VECTORS, True), (SOME, True)])
@pytest.mark.parametrize("draw", [(), (3,)])
def test_rows_are_looked_up_and_multiplied(given, frozen, draw):
    embedding = Embedding(2, 4, 3, given, frozen)
    piece = torch.randn(*draw, *embedding.shape, generator=seeded(), dtype=torch.float64)
    x = torch.randint(0, 4, (*draw, 6, 4), generator=seeded(1)).double()
    seen = torch.rand(*draw, 6, 4, generator=seeded(2)) > 0.3
    queries = torch.randn(*draw, 6, 2, 3, generator=seeded(3), dtype=torch.float64)
    read, scores = embedding.read(piece, x, seen), embedding.scores(piece, queries)
    for own in each_draw(draw):
        table = table_of(embedding, own(piece))
        code = torch.where(own(seen), own(x), 4).long()
        expected = torch.stack([table[i % 2, code[:, i]] for i in range(4)], 1).flatten(1)
        torch.testing.assert_close(own(read), expected)
        product = torch.einsum("rks,kcs->rkc", own(queries), table[:, :-1])
        torch.testing.assert_close(own(scores), product)


def test_frozen_vectors_are_no_weights_and_given_ones_start_where_they_are():
    free, kept = network(embedding=SOME), network(embedding=SOME, freeze_embedding=True)
    partly = network(2, embedding=SOME, freeze_embedding=True)
    assert free.n_parameters - kept.n_parameters == 3 * 3
    assert kept.pieces["embedding"].shape == (1, 2, 3)
    assert partly.pieces["embedding"].shape == (2, 2, 3)
    table = free.piece(free._initial_guess(codes(), seeded()), "embedding")
    assert torch.equal(table[0, [0, 2, 3]], VECTORS[[0, 2, 3]])
    assert bool((table[0, 1] != 0).all())
    prior = free.parameters()["weights"].prior
    assert torch.equal(free.piece({"weights": prior.mean}, "embedding")[0, [0, 2, 3]], VECTORS[[0, 2, 3]])
    spread = float(VECTORS[[0, 2, 3]].square().mean().sqrt())
    assert float(free.piece({"weights": prior.stddev}, "embedding").mean()) == pytest.approx(spread)


@pytest.mark.parametrize("options", [{}, {"hidden": True}])
def test_tied_logits_are_products_with_the_vectors_that_are_read(options):
    model = network(tie_embeddings=True, embedding_size=2 if options else 3)
    assert ("head.hidden" in model.pieces) == bool(options)
    params = {"weights": torch.randn(model.n_parameters, generator=seeded(), dtype=torch.float64)}
    w = {name: model.piece(params, name) for name in model.pieces}
    batch = codes()
    features = torch.randn(7, 3, generator=seeded(4), dtype=torch.float64)
    inputs = torch.randn(7, model.layout.n_inputs, generator=seeded(5), dtype=torch.float64)
    law = model.output.law(model._split(params), features, inputs)
    query = features @ w["head.hidden"].T if options else features
    query = query + inputs @ w["head.direct"].T
    logits = query @ w["embedding"][0, :-1].T + w["head.bias"]
    expected = torch.log_softmax(logits, -1)
    x = batch.x[:, :7].flatten(0, 1)[:7]
    torch.testing.assert_close(law.log_prob(x), expected.gather(-1, x.long()).squeeze(-1))


def test_tied_vectors_learn_from_both_sides():
    model = network(tie_embeddings=True, embedding_size=3)
    weights = torch.randn(model.n_parameters, generator=seeded(), dtype=torch.float64).requires_grad_()
    batch = codes()
    last = batch._replace(seen=torch.zeros_like(batch.seen).index_fill(1, torch.tensor([0]), True))
    model.log_prob({"weights": weights}, last).sum().backward()
    slope = model.piece({"weights": weights.grad}, "embedding")[0]
    assert bool((slope.abs().sum(-1) > 0).all())
    assert torch.autograd.gradcheck(
        lambda w: model.log_prob({"weights": w}, codes()), weights.detach().requires_grad_()
    )


def test_vectors_are_matched_by_token():
    given = {"b": [1.0, 2.0], "zebra": [9.0, 9.0], "d": np.array([3.0, 4.0])}
    matrix = read_vectors(given, 4, ("a", "b", "c", "d"), torch.float64)
    expected = np.array([[np.nan] * 2, [1.0, 2.0], [np.nan] * 2, [3.0, 4.0]])
    np.testing.assert_array_equal(matrix.numpy(), expected)
    np.testing.assert_array_equal(read_vectors({3: [1.0]}, 4, None).numpy()[3], [1.0])


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (np.zeros((3, 2)), ShapeError, r"shape \(3, 2\) for 4 categories"),
        (np.zeros(4), ShapeError, r"shape \(4,\)"),
        (np.full((4, 2), np.inf), ParameterError, "not finite"),
        ("glove", ParameterError, "holds no numbers"),
        ({"x": [1.0]}, ParameterError, "none of the 4 tokens"),
        ({"a": [1.0], "b": [1.0, 2.0]}, ShapeError, "shapes"),
        ({"a": [np.nan]}, ParameterError, r"embedding\['a'\] with values that are not finite"),
    ],
)
def test_bad_vectors_are_named(given, error, message):
    with pytest.raises(error, match=message):
        read_vectors(given, 4, ("a", "b", "c", "d"))


def test_what_cannot_be_joined_is_named():
    with pytest.raises(ShapeError, match="embedding_size=2"):
        network(embedding=VECTORS, embedding_size=2)
    numbers = Normal()
    for options, message in (({"tie_embeddings": True}, "tie_embeddings"), ({"embedding": VECTORS}, "categories")):
        with pytest.raises(IncompatibleError, match=message):
            RecurrentModel(numbers, numbers.observation(1), **options)
