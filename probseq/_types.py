"""What several layers share: objects that are nothing but their constructor's arguments."""

from __future__ import annotations

import inspect
from typing import Any, Self

from probseq.errors import ParameterError

__all__ = ["Configuration"]


class Configuration:
    """An object that only stores its constructor's arguments: emissions, transforms and inferences.

    It follows scikit-learn's protocol (``get_params``, ``set_params``, ``clone``, nested names such as
    ``emission__covariance``) and is equal to another of its class with the same arguments.
    """

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
        known = self.get_params()
        for name, value in params.items():
            if name not in known:
                raise ParameterError(
                    got=f"parameter {name!r} for {type(self).__name__}",
                    expected=f"one of {sorted(known)}",
                    remedy="Check the spelling.",
                )
            part, _, inner = name.partition("__")
            if inner:
                getattr(self, part).set_params(**{inner: value})
            else:
                setattr(self, name, value)
        return self

    def __sklearn_clone__(self) -> Self:
        return type(self)(**{name: _copied(value) for name, value in self.get_params(deep=False).items()})

    def __repr__(self) -> str:
        defaults = inspect.signature(type(self)).parameters
        shown = [f"{n}={v!r}" for n, v in self.get_params(deep=False).items() if repr(v) != repr(defaults[n].default)]
        return f"{type(self).__name__}({', '.join(shown)})"

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and repr(other) == repr(self)

    def __hash__(self) -> int:
        return hash(repr(self))


def _copied(value: Any) -> Any:
    """A copy of the configurations in an argument, and of the lists that hold them."""
    if isinstance(value, Configuration):
        return value.__sklearn_clone__()
    return type(value)(_copied(one) for one in value) if type(value) in (list, tuple) else value
