"""Steps of stochastic gradient Langevin dynamics, with or without momentum, as an optimiser."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Langevin"]

_DECAY, _TINY = 0.99, 1e-8


class Langevin(torch.optim.Optimizer):
    r"""v' = (1 - a) v - e G g + N(0, 2 a e G / n), w' = w + v', with the learning rate e and the friction a.

    g is the gradient of minus the log posterior density divided by the number n of values, so that e is a learning rate
    as of any optimiser. With friction 1 there is no momentum, and n / 2 times the usual step size of Langevin dynamics
    is e. Where the density is normal with curvature n h in a coordinate, its stationary variance is
    1 / (n h (1 - e G h / (2 (2 - a)))) while gradients are exact.

    G is 1, or 1 / (s + 1e-8) with s^2 a moving mean of g^2 (decay 0.99) as long as the group's ``"adapting"`` is true;
    what G depends on stays as it is afterwards.

    Parameters
    ----------
    parameters : iterable of nn.Parameter
    friction : float
        In (0, 1].
    n_values : float
    preconditioned : bool
    clip : float or None
        Largest norm of a gradient while G is adapted.

    References
    ----------
    Welling and Teh (2011), eq. 4. Chen, Fox and Guestrin (2014), eq. 15, with no estimate of the noise of gradients.
    Li, Chen, Carlson and Carin (2016), algorithm 1, whose correction for a changing G is zero where G is fixed.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        friction: float,
        n_values: float,
        preconditioned: bool = False,
        clip: float | None = None,
    ) -> None:
        super().__init__(parameters, {"lr": 0.0, "adapting": True})
        self.friction, self.n_values = friction, n_values
        self.preconditioned, self.clip = preconditioned, clip

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """All of a move but its noise, which ``diffuse`` adds."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with torch.no_grad():
            for group in self.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        self._drift(parameter, parameter.grad, group["lr"], group["adapting"])
        return loss

    def _drift(self, parameter: nn.Parameter, gradient: Tensor, rate: float, adapting: bool) -> None:
        state = self.state[parameter]
        if not state:
            state["velocity"] = torch.zeros_like(parameter)
            state["square"], state["weight"] = torch.zeros_like(parameter), 0.0
        if adapting:
            if self.clip is not None:
                gradient = gradient * (self.clip / gradient.norm().clamp_min(1e-30)).clamp_max(1.0)
            state["square"].mul_(_DECAY).addcmul_(gradient, gradient, value=1 - _DECAY)
            state["weight"] = _DECAY * state["weight"] + 1 - _DECAY
        pulled = gradient / self._resistance(state) if self.preconditioned else gradient
        state["velocity"].mul_(1 - self.friction).add_(pulled, alpha=-rate)
        parameter.add_(state["velocity"])

    def _resistance(self, state: dict[str, Any]) -> Tensor:
        """1 / G."""
        square: Tensor = state["square"]
        return (square / (state["weight"] or 1.0)).sqrt_().add_(_TINY)

    @torch.no_grad()
    def diffuse(self, generator: torch.Generator) -> Tensor | None:
        """Add the noise of the move.

        Returns
        -------
        (1 - a / 2) n / e times the mean of v^2 / G: 1 in equilibrium with exact gradients and small steps, otherwise
        about the factor by which variances are too large; None before the first step.
        """
        heats = []
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                if not state:
                    continue
                rate, velocity = group["lr"], state["velocity"]
                noise = torch.empty_like(parameter).normal_(generator=generator)
                noise.mul_((2 * self.friction * rate / self.n_values) ** 0.5)
                if self.preconditioned:
                    resistance = self._resistance(state)
                    noise /= resistance.sqrt()
                velocity += noise
                parameter += noise
                squares = velocity.square() * resistance if self.preconditioned else velocity.square()
                heats.append(squares.mean() * ((1 - 0.5 * self.friction) * self.n_values / rate))
        return torch.stack(heats).mean() if heats else None
