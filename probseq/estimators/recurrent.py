"""Recurrent networks for users."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from probseq._random import RandomState
from probseq.distributions.emissions import Categorical, Emission
from probseq.errors import ParameterError
from probseq.estimators.base import SequenceEstimator
from probseq.estimators.pipeline import DataInfo, emission_or_normal
from probseq.inference.base import Inference
from probseq.inference.optimize import MLE
from probseq.inference.variational import MeanField
from probseq.models.base import SequenceModel
from probseq.models.recurrent import RecurrentModel
from probseq.models.transforms import Standardize, Transform

__all__ = ["GRU", "LSTM", "RNN"]


_PARAMETERS = """

    Parameters
    ----------
    hidden_size : int
    n_layers : int
    head : Emission
        The law of a value given the network's output; None is ``Normal()``. ``Categorical()`` for text.
    embedding_size : int or None
        Size of the vectors that stand for tokens; None is the smaller of ``hidden_size`` and their number.
    lags : tuple of int
        Which past values enter at each step beside the memory: ``(1, 12)`` adds last year's value of monthly data.
    standardize : bool
        Describe continuous data in standard deviations from their mean, after ``transform``.
    transform : transform or list of transforms
    inference : Inference or None
        None is ``MeanField()``: a normal law over every weight.
    random_state : int or None
    """


class _Recurrent(SequenceEstimator):
    """Constructor and model that the three cells share."""

    cell: ClassVar[str]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.__doc__ = (cls.__doc__ or "") + _PARAMETERS

    inferences: ClassVar[tuple[type[Inference], ...]] = (MeanField, MLE)

    def __init__(
        self,
        hidden_size: int = 32,
        n_layers: int = 1,
        head: Emission | None = None,
        embedding_size: int | None = None,
        lags: tuple[int, ...] = (1,),
        standardize: bool = True,
        transform: Any = None,
        inference: Inference | None = None,
        random_state: RandomState = None,
    ) -> None:
        self.hidden_size = hidden_size
        self.n_layers = n_layers
        self.head = head
        self.embedding_size = embedding_size
        self.lags = lags
        self.standardize = standardize
        self.transform = transform
        self.inference = inference
        self.random_state = random_state
        self._check_pair(inference)

    def _default_inference(self) -> Inference:
        return MeanField()

    def _model_class(self) -> type[SequenceModel[Any]]:
        return RecurrentModel

    def _emission(self) -> Emission:
        return emission_or_normal(self.head, "head")

    def _transforms(self) -> list[Transform]:
        transforms = super()._transforms()
        shiftable = self._emission().shiftable
        if self.standardize and isinstance(shiftable, tuple) and not all(shiftable):
            chosen = [i for i, one in enumerate(shiftable) if one]
            return [*transforms, Standardize(chosen)] if chosen else transforms
        return [*transforms, Standardize()] if self.standardize and shiftable else transforms

    def _build(self, info: DataInfo) -> SequenceModel[Any]:
        head = self._emission()
        for name in ("hidden_size", "n_layers"):
            value = getattr(self, name)
            if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
                raise ParameterError(got=f"{name}={value!r}", expected="an integer from 1", remedy=f"Use {name}=1.")
        observation = head.observation(info.n_variables, info.n_categories)
        return RecurrentModel(
            head,
            observation,
            cell=self.cell,
            hidden_size=int(self.hidden_size),
            n_layers=int(self.n_layers),
            embedding_size=self.embedding_size if isinstance(head, Categorical) else None,
            lags=tuple(self.lags),
            n_covariates=info.n_covariates,
        )


class LSTM(_Recurrent):
    """Long short-term memory network whose weights carry uncertainty (Hochreiter and Schmidhuber 1997)."""

    cell: ClassVar[str] = "lstm"


class GRU(_Recurrent):
    """Network of gated recurrent units whose weights carry uncertainty (Cho et al. 2014)."""

    cell: ClassVar[str] = "gru"


class RNN(_Recurrent):
    """Plain recurrent network, h_t = tanh(W x + U h), whose weights carry uncertainty (Elman 1990)."""

    cell: ClassVar[str] = "rnn"
