"""Generation: sequences from a fitted model, text as text."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from probseq._random import RandomState, torch_generator
from probseq._types import number_in, positive_number, truth_value, whole_number
from probseq.data.sequences import Sequences
from probseq.distributions.base import Distribution
from probseq.distributions.categorical import Categories
from probseq.errors import HistoryError, HorizonError, ParameterError, UnsupportedError
from probseq.estimators.beams import beam_search
from probseq.estimators.state_names import StateNames
from probseq.models.base import map_state
from probseq.results.joint import make_batch

if TYPE_CHECKING:
    from probseq.estimators.base import SequenceEstimator

__all__ = ["Shaping", "generate", "tempering"]


class Shaping(NamedTuple):
    """How tokens are chosen: see ``SequenceEstimator.sample``.

    ``banned`` : (m,) codes that are never drawn, or None.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    beams: int | None = None
    banned: torch.Tensor | None = None

    @property
    def changes_the_law(self) -> bool:
        """Whether what is drawn is not the model's own law."""
        return self.temperature != 1.0 or any(one is not None for one in self[1:])


def tempering(
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    banned: torch.Tensor | None = None,
) -> Callable[[Distribution], Distribution] | None:
    """A map of categorical laws: p^(1/temperature), cut to the ``top_k`` most probable and to the nucleus ``top_p``.

    Codes that are ``banned`` have no probability; the others share it as they would given that none of these comes.

    Source of the nucleus: Holtzman et al. (2020), "The curious case of neural text degeneration", eq. 2 and 3.
    """
    positive_number("temperature", temperature, "1.0 is the model's own law.")
    if top_k is not None:
        whole_number("top_k", top_k, 1, "Use top_k=10.")
    if top_p is not None:
        number_in("top_p", top_p, "(0, 1]", "Use top_p=0.9.")
    if temperature == 1.0 and top_k is None and top_p is None and banned is None:
        return None

    def temper(law: Distribution) -> Distribution:
        if not law.nominal:
            raise UnsupportedError(
                got="temperature, top_k or top_p for a model of numbers",
                expected="a model of categories or tokens",
                remedy="Leave them out.",
            )
        probs: torch.Tensor = law.probs  # type: ignore[attr-defined]
        logits = torch.log(probs)
        if banned is not None:
            logits[..., banned] = -torch.inf
            if bool(torch.isinf(logits).all(-1).any()):
                raise _nothing_left("all that the model gives a probability at some step")
        # From the most probable on, so that a low temperature leaves it in the range of the arithmetic.
        logits = ((logits - logits.amax(-1, keepdim=True)).double() / temperature).to(logits.dtype)
        if top_k is not None and top_k < logits.shape[-1]:
            least = logits.topk(top_k, -1).values[..., -1:]
            logits = torch.where(logits >= least, logits, torch.full_like(logits, -torch.inf))
        if top_p is not None:
            ordered, order = torch.sort(torch.softmax(logits, -1), -1, descending=True)
            outside = torch.cumsum(ordered, -1) - ordered >= top_p
            drop = torch.zeros_like(outside).scatter(-1, order, outside)
            logits = torch.where(drop, torch.full_like(logits, -torch.inf), logits)
        return Categories(logits=logits)

    return temper


def generate(
    estimator: SequenceEstimator,
    length: int,
    n_sequences: int | None,
    history: Any,
    covariates: Any,
    states: bool,
    shaping: Shaping,
    exclude: Any,
    log_prob: bool,
    weights: str,
    random_state: RandomState,
) -> Any:
    """See ``SequenceEstimator.sample``."""
    estimator._check_fitted()
    truth_value("states", states)
    truth_value("log_prob", log_prob)
    n = 1 if n_sequences is None else n_sequences
    if exclude is not None:
        shaping = shaping._replace(banned=_banned(estimator, exclude))
    for name, value in (("length", length), ("n_sequences", n)):
        if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
            raise HorizonError(got=f"{name}={value!r}", expected="a whole number from 1", remedy=f"Try {name}=1.")
    model = estimator.model_
    if shaping.beams is not None:
        _check_beams(estimator, shaping, n, states, covariates)
    if states and not (estimator.has_states or estimator.has_latent_paths):
        raise UnsupportedError(
            got=f"sample(states=True) of {type(estimator).__name__}",
            expected="a family with hidden states that are drawn beside the values",
            remedy="Use HMM or DeepMarkov, or leave states out.",
        )
    state, index = _start(estimator, history, n, int(length))
    state = estimator._held(state, weights)
    ready = model.scores_next(state)
    begins = history is None and model.starts_itself
    if not begins and ready is not None and not bool(ready.all()):
        raise HistoryError(
            got="generation without the values that the model starts from",
            expected=f"a history, since {type(estimator).__name__} conditions on its first values",
            remedy="Pass history=ps.TRAINING or history=X.",
        )
    labels = replace(estimator._unlabelled(n), many=n_sequences is not None)
    inputs = estimator._future_inputs(labels, covariates, int(length), (index,) * n)
    u = None if inputs is None else torch.as_tensor(inputs)
    seed = estimator.random_state if random_state is None else random_state
    generator = torch_generator(seed)
    if states:
        if shaping.changes_the_law or log_prob:
            raise ParameterError(
                got="states=True with temperature, top_k, top_p, exclude or log_prob",
                expected="the model's own law of states and values",
                remedy="Leave the one or the other out.",
            )
        values, hidden = estimator._sample_states(state, int(length), generator, u)
        dims = ("sequence", "time", "state")[: hidden.ndim]
        labelled = labels.label(hidden, dims, name="state", index=(index,) * n)
        labelled = estimator._named_states(labelled) if isinstance(estimator, StateNames) else labelled
        return _values(estimator, labels, values, index, n_sequences), labelled
    if shaping.beams is None:
        temper = tempering(shaping.temperature, shaping.top_k, shaping.top_p, shaping.banned)
        values, _ = model.sample({}, state, int(length), generator, u, temper)
    else:
        words = estimator.vocabulary_
        with torch.no_grad():
            one = map_state(lambda leaf: leaf[:1], state)
            end = None if words is None else words.end_code
            found = beam_search(model, one, int(length), int(shaping.beams), end, shaping.banned)
        if not len(found.codes):
            raise _nothing_left("all that the model gives a probability at some step")
        values = found.codes[:n, :, None].to(model.dtype)
        labels = replace(estimator._unlabelled(len(values)), many=n_sequences is not None)
        state = map_state(lambda leaf: leaf[: len(values)], state)
    made = _values(estimator, labels, values.numpy().astype(float), index, n_sequences)
    return (made, _log_prob(estimator, labels, values, state, u)) if log_prob else made


def _banned(estimator: SequenceEstimator, exclude: Any) -> torch.Tensor:
    """The codes of tokens that are not to be drawn."""
    given = [exclude] if isinstance(exclude, str) or not isinstance(exclude, Iterable) else list(exclude)
    words, size = estimator.vocabulary_, estimator.model_.observation.n_categories
    known = words.codes if words is not None else range(size if isinstance(size, int) else 0)
    unknown = [token for token in given if not isinstance(token, Hashable) or token not in known]
    if unknown:
        raise ParameterError(
            got=f"exclude={unknown[0]!r}",
            expected="tokens of the model's vocabulary",
            remedy="vocabulary_.tokens lists them.",
        )
    codes = {words.codes[token] if words is not None else int(token) for token in given}
    if given and len(codes) == len(known):
        raise _nothing_left(f"all {len(codes)} tokens")
    return torch.tensor(sorted(codes), dtype=torch.long)


def _nothing_left(excluded: str) -> ParameterError:
    return ParameterError(
        got=f"exclude={excluded}", expected="tokens that leave at least one to be drawn", remedy="Exclude fewer."
    )


def _check_beams(estimator: SequenceEstimator, shaping: Shaping, n: int, states: bool, covariates: Any) -> None:
    """Raise for a beam search of what is no sequence of tokens, or together with what changes the law."""
    beams, emission = shaping.beams, estimator.emission_
    if not isinstance(beams, int | np.integer) or isinstance(beams, bool) or beams < n:
        raise ParameterError(
            got=f"beams={beams!r}",
            expected=f"a whole number from {n}, the number of sequences",
            remedy=f"Try beams={max(10, n)}.",
        )
    if emission is None or not emission.nominal or estimator.model_.observation.n_variables != 1:
        raise UnsupportedError(
            got=f"beams for {estimator!r}", expected="a model of categories or tokens", remedy="Leave beams out."
        )
    if covariates is not None or states or shaping._replace(beams=None, banned=None).changes_the_law:
        raise ParameterError(
            got="beams with covariates, states, temperature, top_k or top_p",
            expected="the most probable sequences under the model's own law",
            remedy="Leave the one or the other out.",
        )


def _log_prob(estimator: SequenceEstimator, labels: Sequences, values: torch.Tensor, state: Any, u: Any) -> Any:
    """log p of what was made given what came before, under the model's own law; texts up to their ends."""
    words, whole = estimator.vocabulary_, values.numpy().astype(float)
    lengths = np.full(len(whole), whole.shape[1])
    if words is not None and words.end_code is not None:
        ends = whole[..., 0] == words.end_code
        lengths = np.where(ends.any(1), ends.argmax(1) + 1, lengths)
    inputs = None if u is None else u.expand(len(whole), -1, -1).numpy()
    steps = estimator.model_.log_prob_steps({}, make_batch(estimator.model_, whole, lengths, inputs), state)
    total = steps.values.double().sum(-1).detach().numpy()
    return labels.label(total, ("sequence",), name="log_prob", attrs={"unit": "nats"})


def _start(estimator: SequenceEstimator, history: Any, n: int, length: int) -> tuple[Any, pd.Index]:
    if history is None:
        return estimator.model_.initial_state({}, n), pd.RangeIndex(length)
    from probseq.estimators.base import TRAINING

    if history is TRAINING or estimator._is_training(history, stamped=True):
        past, state = estimator._training()
    else:
        past = estimator._read_past(history)
        state = estimator._after(past)
    if past.n_sequences != 1:
        raise HistoryError(
            got=f"a history of {past.n_sequences} sequences", expected="one sequence", remedy="Select one to continue."
        )
    return map_state(lambda leaf: leaf.expand(n, *leaf.shape[1:]), state), past.future_index(length)[0]


def _values(
    estimator: SequenceEstimator, labels: Sequences, values: np.ndarray, index: pd.Index, n_sequences: int | None
) -> Any:
    words = estimator.vocabulary_
    if words is None:
        return labels.label(
            values, ("sequence", "time", "variable"), name="sample", index=(index,) * len(values), attrs=labels.attrs
        )
    decoded = [words.decode(row[:, 0]) for row in values]
    if labels.is_text:
        texts = [words.join(row) for row in decoded]
        return texts[0] if n_sequences is None else texts
    return decoded[0] if n_sequences is None else decoded
