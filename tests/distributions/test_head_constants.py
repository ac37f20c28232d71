"""Parameters of a head that a network learns once beside those that it gives at every step."""

import pytest
import torch

from probseq.distributions.emissions import Normal, Poisson, Product, StudentT, Tied
from probseq.distributions.params import read_outputs, unconstrained_size
from probseq.errors import ParameterError

HEADS = {
    "shared df": (Tied(StudentT(), shared=("df",)), 2),
    "shared scale": (Tied(Normal(), shared=["scale"]), 3),
    "shared covariance": (Tied(Normal("full"), shared=("covariance",)), 2),
    "in a product": (Product([Poisson(), Tied(StudentT(), shared=("scale", "df")), Normal()]), 3),
}


def law_of(emission, k, draw, batch, seed=0):
    generator = torch.Generator().manual_seed(seed)
    observation = emission.observation(k)
    size = unconstrained_size(emission.output_specs(observation))
    outputs = torch.randn(*draw, *batch, size, generator=generator, dtype=torch.float64)
    each = [emission.initial_constants(observation, generator) for _ in range(max(1, sum(draw)))]
    constants = {name: torch.stack([one[name] for one in each]) if draw else each[0][name] for name in each[0]}
    return outputs, constants, emission.from_outputs(outputs, observation, constants)


@pytest.mark.parametrize("name", list(HEADS))
def test_outputs_and_constants_together_are_the_parameters(name):
    emission, k = HEADS[name]
    observation = emission.observation(k)
    outputs, constants = emission.output_specs(observation), emission.constant_specs(observation)
    assert set(constants) == set(emission.constants)
    assert not set(outputs) & set(constants)
    assert {**outputs, **constants}.keys() == emission.parameters(observation).keys()


@pytest.mark.parametrize("name", list(HEADS))
def test_a_law_with_constants_is_that_of_all_parameters(name):
    emission, k = HEADS[name]
    observation = emission.observation(k)
    outputs, constants, law = law_of(emission, k, (), (4,))
    params = {**read_outputs(emission.output_specs(observation), outputs)}
    for key, value in constants.items():
        params[key] = value.expand(4, *value.shape)
    x = torch.rand(4, k, generator=torch.Generator().manual_seed(1), dtype=torch.float64).round()
    expected = emission.distribution(params).log_prob(x)
    torch.testing.assert_close(law.log_prob(x), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", list(HEADS))
def test_constants_belong_to_their_draw(name):
    emission, k = HEADS[name]
    observation = emission.observation(k)
    outputs, constants, law = law_of(emission, k, (3,), (2, 4))
    assert law.batch_shape == (3, 2, 4)
    x = torch.ones(4, k, dtype=torch.float64)
    for d in range(3):
        own = {key: value[d] for key, value in constants.items()}
        alone = emission.from_outputs(outputs[d], observation, own)
        torch.testing.assert_close(law.log_prob(x)[d], alone.log_prob(x), rtol=1e-10, atol=1e-10)


def test_an_unknown_shared_name_is_named():
    with pytest.raises(ParameterError, match="frequency"):
        Tied(StudentT(), shared=("frequency",)).output_specs(StudentT().observation(1))
