"""Labels of latent states: permuting them, ordering them, and matching them across parameter draws.

The law of the data does not change when the states change names, so each draw from a posterior may name them in its
own way. A permutation ``order`` (*draw, s) says which old state becomes each new one: new state i is old ``order[i]``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from probseq.distributions.params import Params, ParamSpec, take_draw, unconstrained_size, unflatten
from probseq.errors import ParameterError
from probseq.models.base import Batch, SequenceModel
from probseq.models.latent import DiscreteLatent

__all__ = ["exchangeable", "match_states", "moved_start", "order_states", "permute_states", "relabel"]

_STATE_WORDS = ("state", "next_state")
_MAX_ITER = 100
# Numbers kept for matching, draws x steps x states: longer data are thinned in time.
_MATCHED = 20_000_000
# Simulated steps that tell a structure, and how far from zero the coordinates of the parameters behind them are.
_PROBE_STEPS, _GENERIC = 20, 0.3


def permute_states(specs: Mapping[str, ParamSpec], params: Params, permutation: Tensor) -> dict[str, Tensor]:
    """The same law with other names of its states.

    Parameters
    ----------
    specs : parameter specifications; the axes whose dimension word is ``state`` or ``next_state`` are permuted
    params : values (*draw, *spec.shape)
    permutation : (*draw, s) or (s,) int64; new state i is old state ``permutation[i]``

    Raises
    ------
    ParameterError
        for what is no permutation, and where the structure (a mask of forbidden transitions) does not allow it.
    """
    permutation = torch.as_tensor(permutation, dtype=torch.long)
    s = permutation.shape[-1]
    if not torch.equal(permutation.sort(-1).values, torch.arange(s).expand_as(permutation)):
        raise ParameterError(
            got=f"permutation={permutation.tolist()!r}",
            expected="every state exactly once",
            remedy="Entry i is the old state that becomes state i.",
        )
    if any("group" in spec.dims for spec in specs.values()) and not torch.equal(
        permutation, torch.arange(s).expand_as(permutation)
    ):
        raise ParameterError(
            got="a permutation of states that share parameters in groups",
            expected="states that may change places",
            remedy="Choose the order of the groups in Tied(states=...).",
        )
    moved = {}
    for name, spec in specs.items():
        value = params[name]
        lead = value.ndim - len(spec.shape)
        for axis, word in enumerate(spec.dims):
            if word not in _STATE_WORDS:
                continue
            if spec.shape[axis] != s:
                raise ParameterError(
                    got=f"a permutation of {s} states",
                    expected=f"one of the {spec.shape[axis]} states of {name}",
                    remedy="Give one entry a state.",
                )
            draws = permutation.shape[:-1]
            shape = [1] * (lead - len(draws)) + [*draws] + [1] * len(spec.shape)
            shape[lead + axis] = s
            value = torch.take_along_dim(value, permutation.reshape(shape), lead + axis)
        wrong = spec.constraint.violation(value) if value is not params[name] else None
        if wrong:
            raise ParameterError(
                got=f"a permutation of states after which {name} is {wrong}",
                expected="one that the structure allows",
                remedy="States with different allowed transitions cannot change places.",
            )
        moved[name] = value
    return moved


def moved_start(model: DiscreteLatent, permutation: Tensor) -> Tensor | None:
    """The known law of the first state after a permutation (*draw, s) of the states; None where it is not known.

    Raises
    ------
    ParameterError
        where it would differ between draws, since it is no parameter.
    """
    if model.known_start is None:
        return None
    moved = model.known_start[permutation].reshape(-1, model.n_states)
    if not bool((moved == moved[:1]).all()):
        raise ParameterError(
            got="a permutation that differs between draws, for a known law of the first state",
            expected="one after which the first state has the same law in all draws",
            remedy="Leave the states as they are, or fit with start='free'.",
        )
    return moved[0]


def order_states(specs: Mapping[str, ParamSpec], params: Params, by: str | Tensor) -> Tensor:
    """The permutation (*draw, s) that sorts the states upwards by one parameter, or by a key.

    Parameters
    ----------
    by : name of a parameter with a leading state axis (of several variables the first decides, then the second and so
        on), or a key (*draw, s)

    Raises
    ------
    ParameterError
        for a name that is no parameter with a state axis.
    """
    if isinstance(by, Tensor):
        return by.argsort(dim=-1, stable=True)
    known = [n for n, spec in specs.items() if spec.dims[:1] == ("state",) and n not in ("initial", "transition")]
    if by not in known:
        raise ParameterError(
            got=f"order={by!r}", expected=f"one of {', '.join(map(repr, known))}", remedy="Name a parameter of a state."
        )
    lead = params[by].ndim - len(specs[by].shape)
    keys = params[by].flatten(lead + 1) if params[by].ndim > lead + 1 else params[by].unsqueeze(-1)
    order = torch.arange(keys.shape[lead]).expand(keys.shape[: lead + 1])
    # Stable sorts from the last key to the first give the lexicographic order.
    for column in range(keys.shape[-1] - 1, -1, -1):
        key = keys[..., column].gather(-1, order)
        order = order.gather(-1, key.argsort(dim=-1, stable=True))
    return order


def match_states(probs: Tensor, reference: Tensor | None = None, pivot: int = 0, max_iter: int = _MAX_ITER) -> Tensor:
    r"""Permutations of each draw's states under which the draws agree best on who is in which state.

    Minimises sum_d sum_t KL(p^d_t permuted || q_t) over the permutations and over q, the mean of the permuted
    probabilities, by turns: Stephens (2000), Dealing with label switching in mixture models, algorithm 2. It begins
    with the labels that agree best with one draw, the pivot, and ends in a local minimum.

    Parameters
    ----------
    probs : (D, m, s), p(z_t = j) of every draw at m steps; indicators of sampled states serve too
    reference : (m, s) or None
        Probabilities to agree with, instead of the mean of the draws: one assignment, no iteration.
    pivot : int
        A draw whose labels are sound, such as the most likely one.
    max_iter : int

    Returns
    -------
    (D, s) int64; new state i of draw d is its old state ``[d, i]``.
    """
    n_draws, m, s = probs.shape
    if s == 1 or m == 0:
        return torch.arange(s).repeat(n_draws, 1)
    entropy = torch.xlogy(probs, probs).sum(1)
    permutation = _assigned(probs, entropy, probs[pivot] if reference is None else reference.to(probs.dtype))
    for _ in range(0 if reference is not None else max_iter):
        target = torch.zeros(m, s, dtype=probs.dtype)
        for d in range(n_draws):
            target += probs[d][:, permutation[d]]
        found = _assigned(probs, entropy, target / n_draws)
        if torch.equal(found, permutation):
            break
        permutation = found
    return permutation


def _assigned(probs: Tensor, entropy: Tensor, target: Tensor) -> Tensor:
    """The permutation of each draw with the least divergence from the target (m, s)."""
    # cost[i, j]: old state j becoming new state i. A probability of zero is kept off the logarithm's pole.
    logs = target.clamp_min(1e-12).log().mT
    found = [linear_sum_assignment((one - logs @ p).numpy())[1] for one, p in zip(entropy, probs, strict=True)]
    return torch.from_numpy(np.stack(found))


def exchangeable(model: SequenceModel[Any], params: Params, batch: Batch) -> bool:
    """Whether the law of data stays the same when states change names: no structure or known state tells them apart.

    Structure shows at a generic point of the parameter space: neighbouring states change places there, and simulated
    data without gaps must be as likely as before. Values that were learnt, and gaps in the data, do not enter.

    Parameters
    ----------
    params : values (D, *spec.shape), for the constants among them
    batch : the data, for their known states
    """
    if batch.states is not None and bool((batch.states >= 0).any()):
        return False
    specs = model.parameters()
    n_states = _n_states(model)
    generator = torch.Generator().manual_seed(0)
    flat = _GENERIC * torch.randn(1, unconstrained_size(specs), generator=generator, dtype=model.dtype)
    one = {**take_draw(params, slice(0, 1)), **unflatten(specs, flat)}
    u = None
    if model.n_covariates:
        u = torch.randn(1, _PROBE_STEPS, model.n_covariates, generator=generator, dtype=model.dtype)
    with torch.no_grad():
        x = model.sample(one, model.initial_state(one, 1), _PROBE_STEPS, generator, u)[0][0]
        probe = Batch(x, torch.ones_like(x, dtype=torch.bool), torch.tensor([_PROBE_STEPS]), u)
        before = model.log_prob(one, probe)
        for i in range(n_states - 1):
            swap = torch.arange(n_states)
            swap[[i, i + 1]] = swap[[i + 1, i]]
            try:
                after = model.log_prob(permute_states(specs, one, swap), probe)
            except ParameterError:
                return False
            if not torch.allclose(after, before, rtol=1e-9, atol=1e-9):
                return False
    return True


def relabel(
    model: SequenceModel[Any], params: Params, order: str = "match", batch: Batch | None = None
) -> tuple[dict[str, Tensor], Tensor]:
    """Give the states of all draws the same names.

    Parameters
    ----------
    model : a model with latent states
    params : values (D, *spec.shape)
    order : str
        "match" agrees on p(z_t | x) over the data (`match_states`) and then names the states by how often they occur,
        most often first; "occupancy" sorts each draw by that alone; a parameter's name sorts each draw by its values.
    batch : data, needed for "match" and "occupancy"

    Returns
    -------
    params : relabelled
    permutation : (D, s) int64

    Raises
    ------
    ParameterError
        for an unknown order, for missing data, and where a mask of transitions or a known start tells the states apart.
    """
    specs = model.parameters()
    if order not in ("match", "occupancy"):
        if order not in specs:
            words = ["'match'", "'occupancy'", *(repr(n) for n, spec in specs.items() if "state" in spec.dims[:1])]
            raise ParameterError(got=f"order={order!r}", expected=f"one of {', '.join(words)}", remedy="Choose one.")
        permutation = order_states(specs, params, order)
    else:
        if batch is None:
            raise ParameterError(
                got=f"order={order!r} without data", expected="a batch", remedy="Pass the data, or a parameter's name."
            )
        permutation = _by_states(model, params, batch, match=order == "match")
    known = model.known_start if isinstance(model, DiscreteLatent) else None
    if known is not None and not torch.equal(known[permutation], known.expand(permutation.shape)):
        raise ParameterError(
            got="a permutation of states whose law of the first state is known",
            expected="one that keeps that law",
            remedy="States that begin with different probabilities cannot change places.",
        )
    return permute_states(specs, params, permutation), permutation


def _by_states(model: SequenceModel[Any], params: Params, batch: Batch, match: bool) -> Tensor:
    if not isinstance(model, DiscreteLatent):
        raise ParameterError(
            got=f"relabelling of {type(model).__name__}", expected="a model with latent states", remedy="Leave it out."
        )
    n_draws = next(iter(params.values())).shape[0]
    rows = batch.real.flatten().nonzero().squeeze(-1)
    most = max(1, _MATCHED // (n_draws * model.n_states))
    if len(rows) > most:
        rows = rows[torch.from_numpy(np.linspace(0, len(rows) - 1, most).round().astype(np.int64))]
    probs = torch.empty(n_draws, len(rows), model.n_states, dtype=torch.float64)
    occupancy = torch.empty(n_draws, model.n_states, dtype=torch.float64)
    log_prob = torch.empty(n_draws, dtype=torch.float64)
    with torch.no_grad():
        for d in range(n_draws):
            one = take_draw(params, slice(d, d + 1))
            each = model.smooth(one, batch).flatten(0, 2)
            probs[d], occupancy[d] = each[rows], each.sum(0)
            log_prob[d] = model.log_prob(one, batch).sum()
    if not match:
        return occupancy.argsort(dim=-1, descending=True, stable=True)
    permutation = match_states(probs, pivot=int(log_prob.argmax()))
    common = occupancy.gather(-1, permutation).mean(0).argsort(dim=-1, descending=True, stable=True)
    return permutation[:, common]


def _n_states(model: SequenceModel[Any]) -> int:
    sizes = {
        spec.shape[axis]
        for spec in model.parameters().values()
        for axis, word in enumerate(spec.dims)
        if word in _STATE_WORDS
    }
    if len(sizes) != 1:
        raise ParameterError(
            got=f"{type(model).__name__}", expected="a model whose parameters name states", remedy="Leave it out."
        )
    return sizes.pop()
