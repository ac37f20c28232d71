"""Random numbers: one ``random_state`` in, independent streams out; the global generators are never touched."""

from __future__ import annotations

import numbers
import secrets
from typing import TYPE_CHECKING

import numpy as np

from probseq.errors import ParameterError

if TYPE_CHECKING:
    import torch

RandomState = int | np.random.Generator | np.random.RandomState | np.random.SeedSequence | None


def numpy_generator(random_state: RandomState = None) -> np.random.Generator:
    """Return a NumPy generator for what users pass as ``random_state``.

    Raises
    ------
    ParameterError
        For anything but None, a non-negative int, a ``SeedSequence``, a ``Generator`` or a legacy ``RandomState``.
    """
    if isinstance(random_state, np.random.Generator):
        return random_state
    if isinstance(random_state, np.random.RandomState):
        return np.random.default_rng(random_state.randint(0, 2**31 - 1, size=4))
    is_seed = isinstance(random_state, numbers.Integral) and not isinstance(random_state, bool) and random_state >= 0
    if random_state is None or is_seed or isinstance(random_state, np.random.SeedSequence):
        return np.random.default_rng(random_state)  # type: ignore[arg-type]
    raise ParameterError(
        got=f"random_state={random_state!r}",
        expected="None, a non-negative integer or a numpy Generator",
        remedy="Pass an integer for results that repeat.",
    )


def torch_generator(random_state: RandomState = None, device: str = "cpu") -> torch.Generator:
    """Return a torch generator whose stream is determined by ``random_state``."""
    import torch

    seed = secrets.randbits(63) if random_state is None else int(numpy_generator(random_state).integers(0, 2**63 - 1))
    return torch.Generator(device=device).manual_seed(seed)
