"""Dropout: noise of the training only, drawn from its own generator, with the right mean."""

import pytest
import torch

from probseq.distributions.emissions import Normal
from probseq.errors import ParameterError
from probseq.models.base import Batch
from probseq.models.recurrent import RecurrentModel
from probseq.models.recurrent_noise import Dropout

KINDS = {
    "outputs": Dropout(outputs=0.4),
    "locked": Dropout(locked=0.4),
    "weights": Dropout(weights=0.4),
    "all": Dropout(0.1, 0.2, 0.3),
}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def network(dropout, cell="lstm", n_layers=2, **options):
    emission = Normal()
    return RecurrentModel(
        emission, emission.observation(2), cell, 4, n_layers, dtype=torch.float64, dropout=dropout, **options
    )


def data(n=3, t=6):
    x = torch.randn(n, t, 2, dtype=torch.float64, generator=seeded(4))
    lengths = torch.tensor([t, t - 2, 1] + [t] * (n - 3))
    seen = (torch.arange(t) < lengths.unsqueeze(-1)).unsqueeze(-1).expand(x.shape)
    return Batch(x * seen, seen, lengths)


def params_of(model):
    return {"weights": 0.4 * torch.randn(model.n_parameters, dtype=torch.float64, generator=seeded(1))}


def training(model, params, batch, seed=0):
    return model._training_log_prob(params, batch, batch.seen, None, seeded(seed))


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("options", [{}, {"n_layers": 1, "cell": "gru"}, {"residual": True, "attention": 3}])
def test_noise_comes_from_the_generator_and_is_in_training_only(kind, options):
    model, plain = network(KINDS[kind], **options), network(Dropout(), **options)
    params, batch = params_of(model), data()
    before = torch.get_rng_state()
    first, again, other = (training(model, params, batch, seed)[0] for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, again)
    # The third sequence has one step: its recurrent matrices multiply zeros.
    assert bool((first != other)[:2].all())
    assert torch.equal(model.log_prob(params, batch), plain.log_prob(params, batch))
    torch.testing.assert_close(training(plain, params, batch)[0], plain.log_prob(params, batch))


def masks_of(dropout, n=2, t=3):
    like = torch.zeros(1, dtype=torch.float64)
    return dropout.masks(like, (n, t), (5, 4, 6), 2, (slice(10, 20), slice(30, 40)), 50, seeded())


def test_every_kind_has_its_mask():
    none = masks_of(Dropout())
    assert none == (None, None, (), None, None)
    steps = masks_of(Dropout(outputs=0.5))
    assert [m.shape for m in steps.between] == [(2, 3, 4)] * 2
    assert steps.features.shape == (2, 3, 6)
    assert steps.inputs is None and steps.direct is None and steps.weights is None
    locked = masks_of(Dropout(locked=0.5))
    assert [m.shape for m in locked.between] == [(2, 1, 4)] * 2
    assert (locked.inputs.shape, locked.features.shape, locked.direct.shape) == ((2, 1, 5), (2, 1, 6), (2, 1, 5))
    matrices = masks_of(Dropout(weights=0.5)).weights
    assert bool((matrices[:10] == 1).all() and (matrices[20:30] == 1).all() and (matrices[40:] == 1).all())
    assert set(matrices[10:20].tolist()) | set(matrices[30:40].tolist()) == {0.0, 2.0}


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.8])
def test_expectations_stay(rate):
    masks = masks_of(Dropout(rate, rate), n=200, t=200)
    for mask, variance in ((masks.inputs, 1), (masks.features, 2)):
        # A product of two kinds of masks has the mean 1 and E m^2 = (1 - rate)^-2.
        second = (1 - rate) ** -variance
        draws = mask[:, :1].numel()
        assert float(mask.mean()) == pytest.approx(1.0, abs=5 * ((second - 1) / draws) ** 0.5)
        kept = float((mask > 0).double().mean())
        assert kept == pytest.approx((1 - rate) ** variance, abs=5 * (0.25 / draws) ** 0.5)
        assert mask[mask > 0].unique().tolist() == pytest.approx([second])


def test_a_locked_mask_is_a_column_less():
    """Dropping an input of a layer everywhere is the same as a matrix without that column."""
    model = network(Dropout(locked=0.5), "gru", 1)
    params, batch = params_of(model), data()
    alone = batch._replace(**{name: getattr(batch, name)[:1] for name in ("x", "seen", "lengths")})
    masks = model._masks(alone, params["weights"], seeded(3))
    values, _ = training(model, params, alone, 3)
    plain = network(Dropout(), "gru", 1)
    changed = {"weights": params["weights"].clone()}
    for name, mask in (
        ("layers.0.input", masks.inputs),
        ("head.hidden", masks.features),
        ("head.direct", masks.direct),
    ):
        plain.piece(changed, name).mul_(mask[0])
    torch.testing.assert_close(values, plain.log_prob(changed, alone))


def test_weight_dropout_masks_recurrent_matrices_once_a_mini_batch():
    model, plain = network(Dropout(weights=0.5)), network(Dropout())
    params, batch = params_of(model), data()
    mask = model._masks(batch, params["weights"], seeded(3)).weights
    first = model.pieces["layers.0.input"].start
    changed = {"weights": params["weights"].clone()}
    changed["weights"][first : first + len(mask)] *= mask
    for layer in (0, 1):
        assert bool((plain.piece(changed, f"layers.{layer}.recurrent") == 0).any())
        assert bool((plain.piece(changed, f"layers.{layer}.input") != 0).all())
    torch.testing.assert_close(training(model, params, batch, 3)[0], plain.log_prob(changed, batch))


def test_gradients_reach_all_weights_under_noise():
    model = network(Dropout(0.1, 0.1, 0.1), layer_norm=True, residual=True, attention=2)
    params = {"weights": params_of(model)["weights"].requires_grad_()}
    training(model, params, data())[0].sum().backward()
    for name in model.pieces:
        slope = model.piece({"weights": params["weights"].grad}, name)
        assert bool(torch.isfinite(slope).all())
        assert bool((slope != 0).any()), name


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5, float("nan"), "half", True])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_bad_rates_are_named(rate, place):
    rates = [0.0, 0.0, 0.0]
    rates[place] = rate
    name = ("dropout", "locked_dropout", "weight_dropout")[place]
    with pytest.raises(ParameterError, match=f"^Got {name}="):
        network(Dropout(*rates))
