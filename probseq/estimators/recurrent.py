"""Recurrent networks for users."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from probseq._random import RandomState
from probseq._types import Rule, one_of, or_none, truth_value, whole_number
from probseq.data.sequences import Sequences
from probseq.distributions.emissions import Emission, Observation
from probseq.errors import IncompatibleError, ParameterError
from probseq.estimators.base import SequenceEstimator
from probseq.estimators.network_compression import NetworkCompression
from probseq.estimators.network_gradients import NetworkGradients
from probseq.estimators.network_spectrum import NetworkSpectrum
from probseq.estimators.network_values import check_sizes, standardized
from probseq.estimators.pipeline import DataInfo, emission_without_inputs
from probseq.estimators.weight_summary import WeightSummary
from probseq.inference.base import Inference
from probseq.inference.dropout import MCDropout
from probseq.inference.ensemble import Ensemble
from probseq.inference.langevin import SGHMC, SGLD
from probseq.inference.laplace import Laplace
from probseq.inference.map import MAP
from probseq.inference.optimize import MLE
from probseq.inference.swag import SWAG
from probseq.inference.variational import MeanField
from probseq.models.base import SequenceModel
from probseq.models.recurrent import RecurrentModel
from probseq.models.recurrent_embedding import read_vectors
from probseq.models.recurrent_noise import Dropout, dropout_rate
from probseq.models.recurrent_start import SCHEMES
from probseq.models.transforms import Particles, Transform

__all__ = ["GRU", "LSTM", "RNN"]

_PARTICLES = 100
_COUNT = partial(whole_number, lowest=1)
_CELLS = {"tanh": "rnn", "relu": "relu"}

_PARAMETERS = """

    Parameters
    ----------
    hidden_size : int
    n_layers : int
    head : Emission
        The law of a value given the network's output; None is ``Normal()``. ``Categorical()`` for text.
    embedding_size : int or None
        Size of the vectors that stand for tokens; None is that of ``embedding``, else the smaller of ``hidden_size``
        and the number of tokens.
    lags : tuple of int
        Which past values enter at each step beside the memory: ``(1, 12)`` adds last year's value of monthly data.
    standardize : bool
        Describe continuous data in standard deviations from their mean, after ``transform``. Covariates stay as they
        are. What the network reads is best of a size near one; below 1e-6 or above 1e6 it raises.
    transform : transform or list of transforms
    inference : Inference or None
        None is ``MeanField()``: a normal law over every weight. ``MCDropout`` and ``Ensemble`` give draws too, ``MLE``
        and ``MAP`` a point.
    random_state : int or None
    residual : bool
        Add what a layer reads to what it passes on, from the second layer.
    layer_norm : bool
        Normalise what a layer passes on (Ba, Kiros and Hinton 2016).
    dropout : float
        Noise of training: the share of what each layer passes on that is dropped, anew at every step. None of the three
        kinds of dropout is there in predictions; ``MCDropout`` is the posterior that drops weights.
    locked_dropout : float
        The same with one mask a sequence, of what each layer and the head read (Gal and Ghahramani 2016).
    weight_dropout : float
        Of the recurrent matrices, one mask a mini-batch (Merity, Keskar and Socher 2018).
    embedding : array (n_categories, size), mapping from tokens to vectors, or None
        Vectors that are known, such as GloVe's. Tokens that a mapping does not have start at random.
    freeze_embedding : bool
        Keep the known vectors as they are: constants, not weights.
    tie_embeddings : bool
        Write tokens with the vectors they are read with (Press and Wolf 2017): fewer weights in a large vocabulary.
    attention : int or None
        Window of causal attention: the head also reads a weighted mean of the last so many states (see
        ``attention_weights``).
    attention_heads : int
        Number of such means; a divisor of ``hidden_size``.
    initialization : {"uniform", "xavier", "he", "orthogonal"}
        Where matrices start. The bias of an LSTM's forget gate starts at 1.
    missing : {"mask", "particles"}
        What the network reads in place of a missing value. ``mask`` tells it that one is missing: its law is then exact
        given the pattern of missing values. ``particles`` draws it, many times, from the network's own predictive law,
        and weighs the draws by what came after: an estimate of the law in which it is integrated out (``exact`` is
        False). The training reads the mask in both cases.
    n_particles : int
        The cost and the memory of data with missing values grow with it.
    """

_EXAMPLE = """
    Examples
    --------
    >>> import probseq as ps
    >>> y = [0.1, 0.9, 0.2, 0.8, 0.1, 1.0, 0.2, 0.9, 0.0, 0.8]
    >>> quick = ps.MLE(training=ps.TrainingOptions(max_epochs=2))
    >>> model = ps.{name}(hidden_size=4, n_layers=2, residual=True, inference=quick, random_state=0).fit(y)
    >>> model.encode(y).dims
    ('time', 'unit')
    """


class _Recurrent(NetworkGradients, NetworkSpectrum, NetworkCompression, WeightSummary, SequenceEstimator):
    """Constructor and model that the three cells share."""

    cell: ClassVar[str]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.__doc__ = (cls.__doc__ or "") + _PARAMETERS + _EXAMPLE.replace("{name}", cls.__name__)

    inferences: ClassVar[tuple[type[Inference], ...]] = (
        MeanField,
        MLE,
        MAP,
        MCDropout,
        Ensemble,
        SWAG,
        Laplace,
        SGLD,
        SGHMC,
    )
    rules: ClassVar[Mapping[str, Rule]] = {
        "hidden_size": _COUNT,
        "n_layers": _COUNT,
        "embedding_size": or_none(_COUNT),
        "standardize": truth_value,
        "residual": truth_value,
        "layer_norm": truth_value,
        "dropout": dropout_rate,
        "locked_dropout": dropout_rate,
        "weight_dropout": dropout_rate,
        "freeze_embedding": truth_value,
        "tie_embeddings": truth_value,
        "attention": or_none(partial(whole_number, lowest=2)),
        "attention_heads": _COUNT,
        "initialization": partial(one_of, choices=SCHEMES),
        "missing": partial(one_of, choices=("mask", "particles")),
        "n_particles": partial(whole_number, lowest=2),
    }

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
        *,
        residual: bool = False,
        layer_norm: bool = False,
        dropout: float = 0.0,
        locked_dropout: float = 0.0,
        weight_dropout: float = 0.0,
        embedding: Any = None,
        freeze_embedding: bool = False,
        tie_embeddings: bool = False,
        attention: int | None = None,
        attention_heads: int = 1,
        initialization: str = "uniform",
        missing: str = "mask",
        n_particles: int = _PARTICLES,
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
        self.residual, self.layer_norm = residual, layer_norm
        self.dropout, self.locked_dropout, self.weight_dropout = dropout, locked_dropout, weight_dropout
        self.embedding, self.freeze_embedding, self.tie_embeddings = embedding, freeze_embedding, tie_embeddings
        self.attention, self.attention_heads = attention, attention_heads
        self.initialization = initialization
        self.missing, self.n_particles = missing, n_particles
        self._check_pair(inference)

    def _default_inference(self) -> Inference:
        return MeanField()

    def _model_class(self) -> type[SequenceModel[Any]]:
        return RecurrentModel

    def _emission(self) -> Emission:
        return emission_without_inputs(self.head, "head")

    def _transforms(self) -> list[Transform]:
        transforms = super()._transforms()
        if self.standardize:
            transforms = standardized(transforms, self._emission())
        return transforms if self.missing == "mask" else [*transforms, Particles(int(self.n_particles))]

    def _info(self, data: Sequences) -> DataInfo:
        info = super()._info(data)
        if isinstance(self.embedding, Mapping) and data.vocabulary is not None:
            return replace(info, tokens=data.vocabulary.tokens)
        return info

    def _cell(self) -> str:
        return self.cell

    def _check_arguments(self) -> None:
        super()._check_arguments()
        for name, usual, needed in (
            ("attention_heads", 1, "attention= the number of steps to attend to" if self.attention is None else ""),
            ("n_particles", _PARTICLES, 'missing="particles"' if self.missing == "mask" else ""),
        ):
            if needed and getattr(self, name) != usual:
                raise ParameterError(
                    got=f"{name}={getattr(self, name)}, which has no effect here",
                    expected=needed,
                    remedy=f"Leave {name} out otherwise.",
                )

    def _check_values(self, values: np.ndarray, inputs: np.ndarray | None) -> None:
        check_sizes(self._emission(), self._transforms(), values, inputs)

    def _build(self, info: DataInfo) -> SequenceModel[Any]:
        head = self._emission()
        observation = head.observation(info.n_variables, info.n_categories)
        if self.embedding_size is not None and observation.n_categories is None:
            raise IncompatibleError(
                got=f"embedding_size={self.embedding_size} with head={head!r}",
                expected="head=Categorical(), whose values are categories",
                remedy="Leave embedding_size out: numbers enter as they are.",
            )
        return RecurrentModel(
            head,
            observation,
            cell=self._cell(),
            hidden_size=int(self.hidden_size),
            n_layers=int(self.n_layers),
            embedding_size=_plain(self.embedding_size),
            lags=tuple(self.lags) if isinstance(self.lags, list | range | np.ndarray) else self.lags,
            n_covariates=info.n_covariates,
            residual=bool(self.residual),
            layer_norm=bool(self.layer_norm),
            dropout=Dropout(self.dropout, self.locked_dropout, self.weight_dropout),
            embedding=self._vectors(observation, info),
            freeze_embedding=bool(self.freeze_embedding),
            tie_embeddings=bool(self.tie_embeddings),
            attention=_plain(self.attention),
            attention_heads=_plain(self.attention_heads),
            initialization=self.initialization,
        )

    def _vectors(self, observation: Observation, info: DataInfo) -> Tensor | None:
        """The known vectors, one row a category."""
        if self.embedding is None:
            return None
        if not isinstance(observation.n_categories, int):
            raise IncompatibleError(
                got=f"an embedding with head={self.head!r}",
                expected="head=Categorical(), whose values are categories",
                remedy="Leave embedding out, or choose that head.",
            )
        return read_vectors(self.embedding, observation.n_categories, info.tokens)


def _plain(value: Any) -> Any:
    """A whole number of numpy as one of Python."""
    return int(value) if isinstance(value, np.integer) else value


class LSTM(_Recurrent):
    r"""Long short-term memory network whose weights carry uncertainty (Hochreiter and Schmidhuber 1997).

    c_t = f * c_{t-1} + i * g, h_t = o * tanh(c_t), with weights of their own for g = tanh(W z_t + U h_{t-1} + b) and
    the gates i, f, o = sigmoid(W z_t + U h_{t-1} + b).
    """

    cell: ClassVar[str] = "lstm"


class GRU(_Recurrent):
    r"""Network of gated recurrent units whose weights carry uncertainty (Cho et al. 2014).

    h_t = k * h_{t-1} + (1 - k) * tanh(W z_t + b + r * (U h_{t-1} + b')), with weights of their own for the gates
    k, r = sigmoid(W z_t + U h_{t-1} + b); the reset r acts behind the product, as in cuDNN.
    """

    cell: ClassVar[str] = "gru"


class RNN(_Recurrent):
    """Plain recurrent network, h_t = tanh(W z_t + U h_{t-1} + b), whose weights carry uncertainty (Elman 1990).

    ``nonlinearity="relu"`` has max(0, .) in place of tanh (Le, Jaitly and Hinton 2015).
    """

    cell: ClassVar[str] = "rnn"
    rules: ClassVar[Mapping[str, Rule]] = {
        **_Recurrent.rules,
        "nonlinearity": partial(one_of, choices=tuple(_CELLS)),
    }

    def __init__(self, *arguments: Any, nonlinearity: str = "tanh", **options: Any) -> None:
        self.nonlinearity = nonlinearity
        super().__init__(*arguments, **options)

    def _cell(self) -> str:
        return _CELLS[self.nonlinearity]


_SHARED = inspect.signature(_Recurrent.__init__)
_OWN = inspect.Parameter("nonlinearity", inspect.Parameter.KEYWORD_ONLY, default="tanh")
# scikit-learn reads the arguments of a constructor from its signature.
setattr(RNN.__init__, "__signature__", _SHARED.replace(parameters=[*_SHARED.parameters.values(), _OWN]))  # noqa: B010
