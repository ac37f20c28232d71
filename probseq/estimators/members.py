"""Estimators that are made of fitted ones, and what a file keeps of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping
from typing import Any

from sklearn.base import BaseEstimator

from probseq.estimators.base import SequenceEstimator
from probseq.estimators.fitted import _UnfittedError

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
    """An estimator that is no sequence model of its own but asks fitted ones."""

    def save(self, path: Any) -> None:
        """Write all that was fitted to one file that ``ps.load`` reads; no pickle, no training values inside."""
        from probseq.estimators.storage import save

        self._check_fitted()
        save(self, path)

    def _check_fitted(self) -> None:
        if not self.__sklearn_is_fitted__():
            name = type(self).__name__
            raise _UnfittedError(got=f"a {name} that is not fitted", expected="a fitted one", remedy="Call fit first.")

    @abstractmethod
    def __sklearn_is_fitted__(self) -> bool:
        """Whether ``fit`` has been called."""
