"""What several layers share: objects that are nothing but their constructor's arguments, records of a fit, checks."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields
from numbers import Number
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch.distributions import Distribution

from probseq.errors import ParameterError

__all__ = [
    "Configuration",
    "Record",
    "Rule",
    "Ruled",
    "equal_values",
    "number_in",
    "one_of",
    "or_none",
    "positive_number",
    "truth_value",
    "whole_number",
]

Rule = Callable[[str, Any], Any]
"""Called with the name and the value of an argument; raises ``ParameterError`` for a value that is not allowed."""


class Ruled:
    """An object whose arguments have rules."""

    rules: ClassVar[Mapping[str, Rule]] = {}
    """What arguments may be, by name, whatever the data and the model are."""

    def check_rules(self) -> None:
        """Raise ``ParameterError`` for the first argument that breaks its rule."""
        for name, rule in self.rules.items():
            rule(name, getattr(self, name))


class Configuration(Ruled):
    """An object that only stores its constructor's arguments: emissions, transforms and inferences.

    It follows scikit-learn's protocol (``get_params``, ``set_params``, ``clone``, nested names such as
    ``emission__covariance``) and is equal to another of its class with the same arguments.
    """

    not_saved: ClassVar[tuple[str, ...]] = ()
    """Arguments that belong to the run and not to the model: files of models leave them out."""

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's arguments by name; ``deep`` adds those of the configurations among them."""
        own = {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}
        parts = {name: value for name, value in own.items() if deep and isinstance(value, Configuration)}
        inner = {f"{name}__{key}": value for name, part in parts.items() for key, value in part.get_params().items()}
        return {**own, **inner}

    def set_params(self, **params: Any) -> Self:
        """Set constructor arguments by name.

        Raises
        ------
        ParameterError
            For a name that the constructor does not have.
        """
        own = self.get_params(deep=False)
        for name, value in params.items():
            part, _, inner = name.partition("__")
            if inner and part in own:
                if getattr(self, part) is None and self._default_part(part) is not None:
                    setattr(self, part, self._default_part(part))
                if isinstance(getattr(self, part), Configuration):
                    getattr(self, part).set_params(**{inner: value})
                    continue
            if name not in own:
                raise ParameterError(
                    got=f"parameter {name!r} for {type(self).__name__}",
                    expected=f"one of {sorted(self.get_params())}",
                    remedy="Check the spelling.",
                )
            setattr(self, name, value)
        return self

    def _default_part(self, name: str) -> Configuration | None:
        """A new object of what None stands for in an argument that is a configuration, or None."""
        return None

    def __sklearn_clone__(self) -> Self:
        return type(self)(**{name: _copied(value) for name, value in self.get_params(deep=False).items()})

    def __repr__(self) -> str:
        defaults = inspect.signature(type(self)).parameters
        shown = [f"{n}={v!r}" for n, v in self.get_params(deep=False).items() if repr(v) != repr(defaults[n].default)]
        return f"{type(self).__name__}({', '.join(shown)})"

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and equal_values(self.get_params(deep=False), other.get_params(deep=False))

    def __hash__(self) -> int:
        # Equal numbers of different types, arrays and NaN have no common hash: words are what stays.
        words = (value for value in self.get_params(deep=False).values() if isinstance(value, str))
        return hash((type(self), *words))


class Record:
    """A dataclass of what a fit has found: its fields are all that it is, so that files of models can keep it.

    Fields hold None, numbers, text, arrays, tensors, configurations, further records, and tuples, lists and dicts of
    these.
    """


def _copied(value: Any) -> Any:
    """A copy of the configurations in an argument, and of the lists that hold them."""
    if isinstance(value, Configuration):
        return value.__sklearn_clone__()
    return type(value)(_copied(one) for one in value) if type(value) in (list, tuple) else value


def equal_values(a: Any, b: Any) -> bool:
    """Whether two values are equal: arrays and tensors with their NaN, laws and records by class and what they hold."""
    if a is b:
        return True
    if isinstance(a, Number) and isinstance(b, Number) and isinstance(a, bool) == isinstance(b, bool):
        return bool(a == b) or bool(a != a and b != b)
    if type(a) is not type(b):
        return False
    if isinstance(a, Distribution):
        return _parts(a).keys() == _parts(b).keys() and all(equal_values(v, _parts(b)[n]) for n, v in _parts(a).items())
    if isinstance(a, Record):
        return all(equal_values(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))  # type: ignore[arg-type]
    if isinstance(a, Mapping):
        return a.keys() == b.keys() and all(equal_values(value, b[name]) for name, value in a.items())
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(equal_values(one, other) for one, other in zip(a, b, strict=True))
    if isinstance(a, torch.Tensor):
        return equal_values(a.detach().cpu().numpy(), b.detach().cpu().numpy())
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind in "fc")
    if hasattr(a, "__array__"):
        return equal_values(np.asarray(a), np.asarray(b))
    return bool(a == b)


def _parts(law: Distribution) -> dict[str, Any]:
    """What makes a law: its parameters, or for one made of others (transformed, mixed) all that it holds."""
    names = list(getattr(law, "arg_constraints", {}))
    found = {name: getattr(law, name) for name in names} if names else vars(law)
    return {**found, "batch_shape": law.batch_shape, "event_shape": law.event_shape}


def whole_number(name: str, value: Any, lowest: int, remedy: str = "") -> int:
    """An argument as a whole number of at least ``lowest``; a ParameterError that names it otherwise."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer) or value < lowest:
        remedy = remedy or f"Try {name}={max(1, lowest)}."
        raise ParameterError(got=f"{name}={value!r}", expected=f"a whole number from {lowest}", remedy=remedy)
    return int(value)


def positive_number(name: str, value: Any, remedy: str = "") -> float:
    """An argument as a finite number above zero; a ParameterError that names it otherwise."""
    return number_in(name, value, "(0, inf)", remedy)


def number_in(name: str, value: Any, interval: str, remedy: str = "") -> float:
    """An argument as a number in an interval such as "(0, 1]"; a ParameterError that names it otherwise.

    NaN, infinity and truth values are in no interval.
    """
    low, high = (float(end) for end in interval[1:-1].split(","))
    real = _real(value)
    above = real >= low if interval[0] == "[" else real > low
    below = real <= high if interval[-1] == "]" else real < high
    if not (above and below):
        open_ended = f"a finite number {'from' if interval[0] == '[' else 'above'} {low:g}"
        expected = open_ended if high == np.inf else f"a number in {interval}"
        remedy = remedy or f"Try {name}={low + min(1.0, (high - low) / 2):g}."
        raise ParameterError(got=f"{name}={value!r}", expected=expected, remedy=remedy)
    return real


def _real(value: Any) -> float:
    """A number as a float, infinite where it is too large for one; NaN for all else."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        return float("nan")
    try:
        return float(value)
    except OverflowError:
        return float("inf")


def truth_value(name: str, value: Any, remedy: str = "") -> bool:
    """An argument as True or False; a ParameterError that names it otherwise."""
    if not isinstance(value, bool | np.bool_):
        raise ParameterError(got=f"{name}={value!r}", expected="True or False", remedy=remedy or f"Try {name}=True.")
    return bool(value)


def one_of(name: str, value: Any, choices: tuple[str, ...]) -> str:
    """An argument as one of a few words; a ParameterError that lists them otherwise."""
    if not isinstance(value, str) or value not in choices:
        expected = " or ".join(f'"{word}"' for word in choices)
        raise ParameterError(got=f"{name}={value!r}", expected=expected, remedy="Choose one.")
    return str(value)


def or_none(rule: Rule) -> Rule:
    """The rule for values other than None, which is allowed too."""
    return lambda name, value: None if value is None else rule(name, value)
