"""Checks of sequence models: whatever is fast, batched or averaged equals the step loop."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats
from torch import Tensor

from probseq.distributions.params import flatten, take_draw, unflatten
from probseq.distributions.stacked import is_stacked, single_steps
from probseq.models.base import Batch, SequenceModel, map_state
from probseq.models.marginal import Marginalized
from probseq.results.joint import make_batch
from probseq.testing.cases import ModelCase, StepLoop, repeat_state, stream
from probseq.testing.laws import check_distribution
from probseq.testing.missing import check_missing_values

__all__ = ["check_model", "model_checks"]

Check = Callable[[ModelCase], None]

_PATHS = 3000
_ERRORS = 5.0
_DRAWS = 3


def check_scan_equals_step_loop(case: ModelCase) -> None:
    """Fused log densities, predictives, trajectories and last states equal a loop without padding."""
    model, params, batch = case.model, case.values, case.batch
    steps = model.log_prob_steps(params, batch)
    laws, scored = model.predictive(params, batch)
    folded, folded_scored = model._fold(params, batch, model._scan(params, batch, model.initial_state(params, batch.n)))
    assert_array_equal(scored, steps.scored, "the scored masks of predictive and log_prob_steps differ")
    assert_array_equal(folded_scored, steps.scored, "the scored masks of the trajectory and log_prob_steps differ")
    for i, row in case.rows(batch):
        loop = StepLoop(model, params, row)
        assert_array_equal(steps.scored[i, : row.t], loop.scored, f"sequence {i}: scored masks differ")
        _close(steps.values[i, : row.t], loop.values, case, f"sequence {i}: log_prob_steps is not the step loop")
        assert not bool(steps.values[i, row.t :].any()), "log_prob_steps: not 0 on padding"
        for t in range(row.t):
            if bool(loop.scored[t].any()) or not bool(row.seen[0, t].any()):
                point = row.x[:, t]
                expected = loop.laws[t].cdf(point)[0]
                for law, name in ((laws, "predictive"), (folded, "_scan")):
                    _close(law[i, t].cdf(point[0]), expected, case, f"sequence {i}, step {t}: {name} differs")
        _same_future(case, _row(steps.final, i), loop.final, f"sequence {i}: the last state of log_prob_steps differs")


def check_states_at_steps(case: ModelCase) -> None:
    """States that are kept after some steps, in any order, are those of the step loop."""
    model, batch = case.model, case.batch
    ends = batch.lengths.unsqueeze(-1)
    steps = torch.cat([ends, torch.minimum(torch.tensor([case.start + 2, 0, case.start + 1]), ends)], -1)
    kept = model._states_at(case.values, batch, steps, model.initial_state(case.values, batch.n))
    draws = len(model._draw(case.values))
    for i, row in case.rows(batch):
        after = [model.initial_state(case.values, 1)]
        for t in range(row.t):
            u = None if row.u is None else row.u[:, t]
            after.append(model.update(case.values, after[-1], row.x[:, t], row.seen[:, t], u))
        for j, step in enumerate(steps[i].tolist()):
            state = map_state(lambda leaf, i=i, j=j: leaf.select(draws, i).narrow(draws, j, 1), kept)
            _same_future(case, state, after[step], f"sequence {i}: the state after {step} steps is not the step loop's")


def check_batch_permutation(case: ModelCase) -> None:
    """The order of the sequences does not matter."""
    batch = case.batch
    order = torch.arange(batch.n - 1, -1, -1)
    turned = Batch(batch.x[order], batch.seen[order], batch.lengths[order], None if batch.u is None else batch.u[order])
    plain, other = (case.model.log_prob_steps(case.values, b).values for b in (batch, turned))
    _close(other, plain[order], case, "permuting the sequences changes log_prob_steps")


def check_padding(case: ModelCase) -> None:
    """NaN, infinities and other garbage behind a sequence's end change nothing, nor does more padding."""
    batch = case.batch
    plain = case.model.log_prob_steps(case.values, batch)
    values = torch.where(batch.seen, batch.x, torch.nan).numpy()
    u = None if batch.u is None else batch.u.numpy()
    behind = ~batch.real.numpy()
    for poison in (np.nan, np.inf, -1e300, -1.0):
        spoilt = values.copy()
        spoilt[behind] = poison
        longer = np.concatenate([spoilt, np.full_like(spoilt[:, :3], poison)], 1)
        more = None if u is None else np.concatenate([u, np.full_like(u[:, :3], np.nan)], 1)
        padded = make_batch(case.model, longer, batch.lengths.numpy(), more)
        got = case.model.log_prob_steps(case.values, padded)
        _close(got.values[:, : batch.t], plain.values, case, f"{poison} in the padding changes log_prob_steps")
        assert not bool(got.values[:, batch.t :].any()), "log_prob_steps: not 0 on padding"
    inside = batch.x[:, :1].expand_as(batch.x)
    other = Batch(torch.where(batch.real.unsqueeze(-1), batch.x, inside), batch.seen, batch.lengths, batch.u)
    _close(case.model.log_prob_steps(case.values, other).values, plain.values, case, "padding reaches log_prob_steps")


def check_time_split(case: ModelCase) -> None:
    """log p(x_1:T) = log p(x_1:s) + log p(x_s+1:T | state after s), also where a sequence ended before s."""
    whole = case.model.log_prob_steps(case.values, case.batch)
    for cut in (1, case.start + 1, case.start + 4, case.batch.t - 1):
        first = case.model.log_prob_steps(case.values, case.batch.slice_time(0, cut))
        rest = case.model.log_prob_steps(case.values, case.batch.slice_time(cut, case.batch.t), first.final)
        joined = torch.cat([first.values, rest.values], -1)
        _close(joined, whole.values, case, f"log_prob_steps is not additive when split after {cut} steps")
        ends = torch.cat([first.scored, rest.scored], 1)
        assert_array_equal(ends, whole.scored, f"scored masks differ when split after {cut} steps")
        for i in range(case.batch.n):
            _same_future(case, _row(rest.final, i), _row(whole.final, i), f"the state differs when split after {cut}")


def check_draws(case: ModelCase) -> None:
    """Leading draw dimensions (D,) equal a loop over parameters without them."""
    if not case.model.parameters():
        return
    many = case.random_params((_DRAWS,))
    together = case.model.log_prob_steps(many, case.batch)
    laws, _ = case.model.predictive(many, case.batch)
    assert together.values.shape == (_DRAWS, case.batch.n, case.batch.t), f"shape {tuple(together.values.shape)}"
    for d in range(_DRAWS):
        one = take_draw(many, d)
        alone = case.model.log_prob_steps(one, case.batch)
        _close(together.values[d], alone.values, case, f"draw {d} of log_prob_steps differs from its own run")
        law, scored = case.model.predictive(one, case.batch)
        x = case.batch.x
        _close(laws[d].cdf(x)[scored], law.cdf(x)[scored], case, f"draw {d} of predictive differs from its own run")
    ready = case.model.scores_next(together.final)
    if ready is None or bool(ready.all()):
        u = case.inputs(case.batch.n, 2)
        inputs = None if u is None else torch.as_tensor(u)
        x, _ = case.model.sample(many, together.final, 2, stream(case.seed, "draws"), inputs)
        assert x.shape == (_DRAWS, case.batch.n, 2, case.model.observation.n_variables), "sample: shape with draws"


def check_sample_follows_law(case: ModelCase) -> None:
    """Simulated paths have uniform, independent probability transforms under the predictives that score them."""
    t = 3
    x = case.simulate(_PATHS, t + case.start, "paths")
    u = case.inputs(_PATHS, t + case.start)
    batch = make_batch(case.model, x.double().numpy(), np.full(_PATHS, t + case.start), u)
    laws, scored = case.model.predictive(case.values, batch)
    assert bool(scored[:, case.start :].all()), "a value of a complete path is not scored"
    upper = laws.cdf(batch.x).double()
    counted = case.model.observation.discrete_variables
    if bool(counted.any()):
        lower = laws.cdf_left(batch.x).double()
        noise = torch.rand(upper.shape, generator=stream(case.seed, "pit"), dtype=torch.float64)
        upper = torch.where(counted, lower + noise * (upper - lower), upper)
    pit = upper[:, case.start :].numpy()
    for j in range(t):
        for i in range(pit.shape[-1]):
            p = stats.kstest(pit[:, j, i], "uniform").pvalue
            assert p > 1e-4, f"sample: step {j}, variable {i} does not follow its predictive (p = {p:.1e})"
    if t > 1:
        for j in range(t - 1):
            r = np.corrcoef(pit[:, j, 0], pit[:, j + 1, 0])[0, 1]
            assert abs(r) < _ERRORS / _PATHS**0.5, f"sample: step {j + 1} depends on its past (r = {r:.3f})"
    if case.model.observation.discrete:
        _frequencies(case, batch)


def _frequencies(case: ModelCase, batch: Batch) -> None:
    """Frequencies of whole discrete paths against exp(log_prob)."""
    events, counts = torch.unique(batch.x.flatten(1), dim=0, return_counts=True)
    top = torch.argsort(counts, descending=True)[:10]
    rows = events[top].reshape(len(top), *batch.x.shape[1:])
    u = None if batch.u is None else batch.u[: len(top)]
    if u is not None:
        return
    paths = Batch(rows, torch.ones_like(rows, dtype=torch.bool), torch.full((len(top),), rows.shape[1]), u)
    p = case.model.log_prob(case.values, paths).double().exp()
    error = (p * (1 - p) / batch.n).sqrt() + 2.0 / batch.n
    worst = float(((counts[top] / batch.n - p).abs() / error).max())
    assert worst < _ERRORS, f"sample: frequencies of paths are off from exp(log_prob) by {worst:.1f} errors"


def check_gradient(case: ModelCase) -> None:
    """The gradient of log_prob is finite with missing values and padding, and is the slope of log_prob."""
    specs = case.model.parameters()
    if not specs:
        return
    flat = flatten(specs, case.values).detach().requires_grad_()
    case.model.log_prob(unflatten(specs, flat), case.batch).sum().backward()
    gradient = flat.grad
    assert gradient is not None and bool(torch.isfinite(gradient).all()), "the gradient of log_prob is not finite"
    if case.model.dtype != torch.float64:
        return
    direction = torch.randn(flat.shape, generator=stream(case.seed, "direction"), dtype=flat.dtype)
    with torch.no_grad():
        step = 1e-5
        up, down = (
            case.model.log_prob(unflatten(specs, flat + side * step * direction), case.batch).sum()
            for side in (1.0, -1.0)
        )
        slope = float((up - down) / (2 * step))
    assert_allclose(float(gradient @ direction), slope, rtol=1e-5, atol=1e-4, err_msg="the gradient is not the slope")


def check_forecast_marginals(case: ModelCase) -> None:
    """Closed-form forecasts agree with simulated paths, and the first with ``predict_next``."""
    model, horizon = case.model, 3
    state = model.filter(case.values, case.batch)
    u = case.inputs(case.batch.n, horizon)
    inputs = None if u is None else torch.as_tensor(u)
    law = model.forecast_marginals(case.values, state, horizon, inputs)
    if law is None:
        return
    assert law.batch_shape == (case.batch.n, horizon), f"forecast_marginals: batch shape {tuple(law.batch_shape)}"
    first = model.predict_next(case.values, state, None if inputs is None else inputs[:, 0])
    draws = len(model._draw(case.values))
    for i in (0, case.batch.n - 1):
        start = repeat_state(state, i, _PATHS, draws)
        future = None if inputs is None else inputs[i : i + 1].expand(_PATHS, -1, -1)
        paths, _ = model.sample(case.values, start, horizon, stream(case.seed, f"forecast {i}"), future)
        for q in (0.1, 0.5, 0.9):
            point = law.icdf(torch.full((case.batch.n, horizon, law.n_variables), q, dtype=torch.float64))
            p = law.cdf(point)[i].double().clamp(0.0, 1.0)
            _close(first.cdf(point[:, 0])[i], p[0], case, "forecast_marginals: the first step is not predict_next")
            share = (paths <= point[i]).double().mean(0)
            worst = ((share - p).abs() / ((p * (1 - p) / _PATHS).sqrt() + 1.0 / _PATHS)).max()
            assert float(worst) < _ERRORS, f"forecast_marginals: off from simulated paths by {worst:.1f} errors"


def check_forecast_joint(case: ModelCase) -> None:
    """The joint law of the next steps has the marginals of each, and the density of one step after the other."""
    model, horizon, n = case.model, 4, case.batch.n
    state = model.filter(case.values, case.batch)
    u = case.inputs(n, horizon)
    inputs = None if u is None else torch.as_tensor(u)
    law = model.forecast_joint(case.values, state, horizon, inputs)
    if law is None:
        return
    k = model.observation.n_variables
    assert law.batch_shape == (n,) and law.event_shape == (horizon * k,), "forecast_joint: batch or event shape"
    assert is_stacked(law), f"forecast_joint: a {type(law).__name__} is no normal, map of one or mixture of such"
    each, steps = model.forecast_marginals(case.values, state, horizon, inputs), single_steps(law, k)
    assert each is not None, "forecast_joint without forecast_marginals"
    levels = torch.linspace(0.2, 0.9, horizon * k, dtype=model.dtype).reshape(horizon, k)
    point = each.icdf(levels.expand(n, horizon, k))
    _close(steps.cdf(point), each.cdf(point), case, "forecast_joint: its steps are not forecast_marginals")
    lengths = torch.full((n,), horizon)
    ahead = Batch(point, torch.ones_like(point, dtype=torch.bool), lengths, inputs)
    expected = model.log_prob(case.values, ahead, state)
    _close(law.log_prob(point.flatten(1)), expected, case, "forecast_joint: not the product of one-step laws")


def check_predictive_laws(case: ModelCase) -> None:
    """The law of the next step is normalised; its cdf, quantiles, samples and density agree."""
    state = case.model.filter(case.values, case.batch)
    ready = case.model.scores_next(state)
    if ready is not None and not bool(ready.all()):
        return
    u = case.inputs(case.batch.n, 1)
    law = case.model.predict_next(case.values, state, None if u is None else torch.as_tensor(u[:, 0]))
    check_distribution(law, n_samples=2000, seed=case.seed, rtol=1e-6 if case.model.dtype == torch.float64 else 1e-3)


def check_marginalized(case: ModelCase) -> None:
    """Averaged over draws: log_prob = log sum_d w_d p_d, and sampling, splitting and forecasting follow that law."""
    if not case.model.parameters():
        return
    many = case.random_params((_DRAWS,))
    weights = torch.log(torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64))
    averaged = Marginalized(case.model, many, weights)
    each = case.model.log_prob(many, case.batch).double()
    expected = torch.logsumexp(weights.unsqueeze(-1) + each, 0)
    _close(averaged.log_prob({}, case.batch), expected, case, "log_prob is not that of the mixture over draws")
    inner = ModelCase(averaged, {}, case.missing, case.start, case.seed)
    inner.__dict__.update(whole=case.whole, batch=case.batch)
    for check in (
        check_scan_equals_step_loop,
        check_states_at_steps,
        check_time_split,
        check_sample_follows_law,
        check_forecast_marginals,
        check_forecast_joint,
    ):
        check(inner)
    frozen = averaged.frozen()
    laws, scored = frozen.predictive({}, case.batch)
    values = laws.log_prob_seen(case.batch.x, scored)
    steps = frozen.log_prob_steps({}, case.batch)
    any_scored = scored.any(-1)
    _close(steps.values[any_scored], values[any_scored], case, "frozen weights: the factors are not the predictives'")


CHECKS: dict[str, Check] = {
    check.__name__: check
    for check in (
        check_scan_equals_step_loop,
        check_states_at_steps,
        check_batch_permutation,
        check_padding,
        check_time_split,
        check_draws,
        check_missing_values,
        check_sample_follows_law,
        check_gradient,
        check_forecast_marginals,
        check_forecast_joint,
        check_predictive_laws,
        check_marginalized,
    )
}


def model_checks(skip: Collection[str] = ()) -> list[tuple[str, Check]]:
    """The checks by name, for ``pytest.mark.parametrize``."""
    return [(name, check) for name, check in CHECKS.items() if name not in skip]


def check_model(
    model: SequenceModel[Any],
    params: dict[str, Tensor] | None = None,
    *,
    missing: str = "exact",
    start: int = 0,
    seed: int = 0,
    skip: Collection[str] = (),
) -> None:
    """Run every check of a sequence model.

    Parameters
    ----------
    model : SequenceModel
    params : dict or None
        Values without draw dimensions; random ones without it.
    missing : {"exact", "pattern", "forbidden"}
        What a missing value does: it is integrated out exactly, it is told to the model as missing, or it raises.
    start : int
        How many first steps are conditioned on, not scored.
    seed : int
        Of the parameters, the data and the simulations.
    skip : names of checks that do not apply

    Raises
    ------
    AssertionError
        Naming what differs.
    """
    case = ModelCase(model, params, missing, start, seed)
    for _, check in model_checks(skip):
        check(case)


def _close(got: Tensor, expected: Tensor, case: ModelCase, message: str) -> None:
    assert_allclose(got.detach().double(), expected.detach().double(), rtol=case.rtol, atol=case.rtol, err_msg=message)


def _row(state: Any, i: int) -> Any:
    return repeat_state(state, i, 1)


def _same_future(case: ModelCase, state: Any, expected: Any, message: str) -> None:
    """Two states (n = 1) are equal if they score three further steps alike."""
    u = case.inputs(1, 3)
    x = case.whole.x[:1, -3:].double().numpy()
    batch = make_batch(case.model, x, np.array([3]), u)
    got, want = (case.model.log_prob_steps(case.values, batch, s).values for s in (state, expected))
    _close(got, want, case, message)
