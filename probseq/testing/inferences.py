"""Checks of inferences: what every way of fitting promises."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from probseq._random import torch_generator
from probseq.errors import IncompatibleError
from probseq.inference.base import Inference
from probseq.models.base import Batch, SequenceModel

__all__ = ["check_inference"]

_STATUSES = ("converged", "max_iter", "decreased", "degenerate", "interrupted", "stopped", "exact")


def check_inference(inference: Inference, model: SequenceModel[Any], batch: Batch) -> None:
    """Assert that a fit returns draws of every parameter, allowed, finite, repeatable, and touches nothing else.

    Parameters
    ----------
    inference : Inference
    model : SequenceModel that it can fit
    batch : Batch
    """
    assert inference.can_fit(type(model)), f"{inference!r} cannot fit {type(model).__name__}"
    assert inference == inference.__sklearn_clone__(), "a clone differs"
    unknown: Any = SequenceModel
    if not inference.can_fit(unknown):
        try:
            inference.require(unknown)
        except IncompatibleError as error:
            assert error.expected and error.remedy
        else:
            raise AssertionError("require: no IncompatibleError for a model that cannot be fitted")
    global_state = torch.get_rng_state()
    x = batch.x.clone()
    calls: list[tuple[int, float]] = []
    draws = inference.fit(model, batch, torch_generator(0), progress=lambda i, value: calls.append((i, value)))
    again = inference.fit(model, batch, torch_generator(0))
    assert torch.equal(torch.get_rng_state(), global_state), "the global generator was touched"
    assert torch.equal(batch.x, x), "the data were changed"
    assert draws.status in _STATUSES, f"status {draws.status!r}"
    specs = model.parameters()
    assert set(draws.params) == set(specs), f"parameters {sorted(draws.params)}"
    sizes = {value.shape[0] for value in draws.params.values()}
    assert len(sizes) == 1, f"numbers of draws {sizes}"
    for name, spec in specs.items():
        value = draws.params[name]
        assert tuple(value.shape[1:]) == spec.shape, f"{name}: shape {tuple(value.shape)}"
        assert spec.constraint.violation(value) is None, f"{name}: {spec.constraint.violation(value)}"
        assert not value.requires_grad, f"{name}: carries a gradient"
        assert torch.equal(value, again.params[name]), f"{name}: one generator, two results"
    assert np.isfinite(draws.objective), f"objective {draws.objective}"
    if sizes == {1}:
        reached = float(model.log_prob(draws.params, batch)[0].double().sum())
        assert abs(reached - draws.log_prob) <= 1e-4 * (1 + abs(reached)), f"log_prob {draws.log_prob}, is {reached}"
    assert all(np.isfinite(value) for _, value in calls), "progress reports what is not finite"
