"""Inverse autoregressive flows against those of Pyro."""

from __future__ import annotations

import pytest
import torch
from pyro.distributions.transforms import ConditionalAffineAutoregressive
from pyro.nn.auto_reg_nn import ConditionalAutoRegressiveNN, create_mask

from probseq.models.latent_flow import Flow
from probseq.models.recurrent_layout import NetworkLayout

CONTEXT, HIDDEN = 3, 7


def a_flow(d: int, n_layers: int):
    flow = Flow("flow", d, CONTEXT, HIDDEN, n_layers)
    layout = NetworkLayout(flow.parts, torch.float64)
    generator = torch.Generator().manual_seed(d)
    return flow, layout.split(torch.randn(layout.size, generator=generator).double()), generator


def of_pyro(flow: Flow, weights, i: int):
    d, name = flow.n_latent, flow.names[i]
    order = torch.arange(d).flip(0) if i % 2 else torch.arange(d)
    net = ConditionalAutoRegressiveNN(d, flow.n_context, [flow.hidden_size], permutation=order).double()
    with torch.no_grad():
        net.layers[0].weight.copy_(torch.cat([weights[f"{name}.context"], weights[f"{name}.inward"]], -1))
        net.layers[0].bias.copy_(weights[f"{name}.hidden_bias"])
        net.layers[1].weight.copy_(weights[f"{name}.outward"])
        net.layers[1].bias.copy_(weights[f"{name}.bias"])
        for layer in net.layers:
            layer.mask = layer.mask.double()
    net.f = torch.nn.Tanh()
    return ConditionalAffineAutoregressive(net, stable=True)


@pytest.mark.parametrize("d", [1, 2, 5, 9])
def test_masks_are_those_of_pyro(d):
    flow = a_flow(d, 2)[0]
    for i, order in enumerate((torch.arange(d), torch.arange(d).flip(0))):
        (inward, outward), _ = create_mask(d, CONTEXT, [flow.hidden_size], order, 2)
        assert torch.equal(inward[:, CONTEXT:].bool(), flow.masks[i].inward)
        assert bool(inward[:, :CONTEXT].all())
        assert torch.equal(outward.bool(), flow.masks[i].outward)
        assert flow.masks[i].order == order.tolist()


@pytest.mark.filterwarnings("ignore:ConditionalAutoRegressiveNN input_dim = 1")
@pytest.mark.parametrize("d", [1, 4])
def test_layers_are_those_of_pyro(d):
    flow, weights, generator = a_flow(d, 3)
    z = torch.randn(6, d, generator=generator).double()
    context = torch.randn(6, CONTEXT, generator=generator).double()
    found, log_det = flow(weights, z, context)
    expected, total = z, torch.zeros(6).double()
    for i in range(3):
        step = of_pyro(flow, weights, i).condition(context)
        after = step(expected)
        total = total + step.log_abs_det_jacobian(expected, after)
        expected = after
    assert torch.allclose(found, expected, atol=1e-12)
    assert torch.allclose(log_det, total, atol=1e-12)
    jacobian = torch.autograd.functional.jacobian(lambda row: flow(weights, row, context[0])[0], z[0])
    assert float(torch.linalg.slogdet(jacobian).logabsdet) == pytest.approx(float(log_det[0]), abs=1e-12)


def test_the_inverse_undoes_it_also_for_several_draws():
    flow, weights, generator = a_flow(4, 2)
    many = {name: torch.stack([value, 0.5 * value]) for name, value in weights.items()}
    z = torch.randn(2, 5, 3, 4, generator=generator).double()
    context = torch.randn(2, 5, 3, CONTEXT, generator=generator).double()
    there, log_det = flow(many, z, context)
    back, again = flow.inverse(many, there, context)
    assert torch.allclose(back, z, atol=1e-9)
    assert torch.allclose(again, log_det, atol=1e-9)
    assert torch.allclose(there[0], flow(weights, z[0], context[0])[0])


def test_a_flow_begins_near_the_identity():
    flow, weights, generator = a_flow(4, 2)
    flow.start(weights, generator)
    z = torch.randn(50, 4, generator=generator).double()
    bent, _ = flow(weights, z, torch.zeros(50, CONTEXT).double())
    assert float((bent - 0.776 * z).abs().max()) < 0.1
