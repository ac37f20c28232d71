"""Estimators that are made of fitted ones, and what a file keeps of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping
from typing import Any, ClassVar, Self

from sklearn.base import BaseEstimator

from probseq.errors import ParameterError
from probseq.estimators.base import SequenceEstimator
from probseq.estimators.fitted import UnfittedError

__all__ = ["Composed", "WithMembers"]


class WithMembers(ABC):
    """What has fitted estimators inside, which its file holds in full."""

    @abstractmethod
    def _members(self) -> Mapping[Hashable, SequenceEstimator]:
        """The fitted estimators by name."""

    def _found(self) -> dict[str, Any]:
        """What else the fit has found: numbers, text, arrays, records, and lists and dicts of these."""
        return {}

    @abstractmethod
    def _revive(self, members: dict[Any, SequenceEstimator], found: dict[str, Any]) -> None:
        """Make what the fit made of its members and of what else it found."""


class Composed(WithMembers, BaseEstimator):
    """An estimator that is no sequence model of its own but fits and asks such as one of its arguments says."""

    inner: ClassVar[str] = "model"
    """The argument that says which."""

    def _default_inner(self) -> SequenceEstimator:
        """What None stands for in that argument."""
        from probseq.estimators.hmm import HMM

        return HMM()

    def _template(self) -> SequenceEstimator:
        """The estimator to be fitted, unfitted.

        Raises
        ------
        ParameterError
            For what is none.
        """
        given = getattr(self, self.inner)
        found = self._default_inner() if given is None else given
        if not isinstance(found, SequenceEstimator):
            raise ParameterError(
                got=f"{self.inner}={given!r}",
                expected="an estimator of probseq",
                remedy=f"Write ps.{type(self).__name__}(ps.{self._default_inner()!r}).",
            )
        return found

    def set_params(self, **params: Any) -> Self:
        """Set arguments by name; ``model__n_states`` is one of the estimator inside, or of the default one for None.

        Raises
        ------
        ParameterError
            For an argument of what has none.
        """
        own = {name: value for name, value in params.items() if "__" not in name}
        super().set_params(**own)
        nested = {name: value for name, value in params.items() if name not in own}
        if any(name.startswith(f"{self.inner}__") for name in nested):
            held = getattr(self, self.inner)
            if held is None:
                setattr(self, self.inner, self._default_inner())
            elif isinstance(held, type) or not hasattr(held, "set_params"):
                raise ParameterError(
                    got=f"{next(iter(nested))} with {self.inner}={held!r}",
                    expected="an estimator, which has arguments of its own",
                    remedy=f"Set {self.inner}= as a whole.",
                )
        super().set_params(**nested)
        return self

    def save(self, path: Any) -> None:
        """Write all that was fitted to one file that ``ps.load`` reads; no pickle, no training values inside."""
        from probseq.estimators.storage import save

        self._check_fitted()
        save(self, path)

    def _check_fitted(self) -> None:
        if not self.__sklearn_is_fitted__():
            name = type(self).__name__
            raise UnfittedError(got=f"an unfitted {name}", expected="a fitted one", remedy="Call fit first.")

    @abstractmethod
    def __sklearn_is_fitted__(self) -> bool:
        """Whether ``fit`` has been called."""
