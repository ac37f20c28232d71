"""One table: which model predicts the same held-out values best, by how much, and how sure is that?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from probseq.comparison.evidence import collect
from probseq.comparison.foreign import ForeignForecaster, collect_foreign
from probseq.comparison.table import Comparison
from probseq.data.sequences import Sequences, sequences
from probseq.errors import HistoryError, ParameterError
from probseq.estimators.average_scores import unique_names
from probseq.estimators.base import SequenceEstimator
from probseq.estimators.fitted import TRAINING
from probseq.estimators.history import without_inputs
from probseq.estimators.per_sequence import PerSequence

__all__ = ["Comparison", "compare"]


def compare(
    models: Mapping[str, SequenceEstimator | ForeignForecaster] | list[SequenceEstimator | ForeignForecaster],
    X: Any,
    *,
    history: Any = None,
    lengths: Any = None,
    covariates: Any = None,
    per: str = "value",
) -> Comparison:
    """Score fitted models one step ahead on the same values and rank them.

    Every model is scored on the steps that all of them score: a value that one model only conditions on counts for
    none. Scores are in nats on the scale of the data. Log scores of densities and of probabilities are not compared.

    Parameters
    ----------
    models : dict of name -> fitted estimator, or list
        Any number of them. Forecasters from elsewhere take part with two methods, see ``ForeignForecaster``.
    X : held-out data in any form
    history : None, ps.TRAINING or the data before X
    per : "value", "step" or "sequence"
        What a log score is divided by.

    Returns
    -------
    Comparison
        Its ``table`` has one row a model, best first:

        - ``nats``: mean log score, NaN where there is no likelihood (``Quantiles``, a forecaster of paths): such
          models are ranked by CRPS, behind the others; ``perplexity`` of categories: the number of equally likely ones
          that would be as surprising;
        - ``difference`` to the best and its standard error ``se`` (one sequence: Newey-West over 1.3 sqrt(n) steps with
          the correction of Harvey, Leybourne and Newbold; several: clustered by sequence);
        - ``likelihood``: "exact", or what estimates it, such as "FIVO (100 particles)", a lower bound on average, of
          which a note says what that means beside exact ones; ``monte_carlo``: the standard error that it has in
          ``nats``, steps taken for independent;
        - ``confidence_set``: whether the model is in the 90 % model confidence set of Hansen, Lunde and Nason (2011);
          None where too few steps tell, or there is no log score;
        - ``crps``; ``pinball``, the mean loss at 5, 25, 50, 75 and 95 %; ``cover50`` and ``cover90``, the coverage of
          central intervals; ``pit_p``, the p-value of uniform PIT;
        - ``crps_p``: the p-value of Diebold and Mariano (1995), by the same standard errors, that the CRPS equals that
          of the model ranked first;
        - ``weight`` and ``pseudo_bma``: weights by stacking and by pseudo-BMA+, learnt on the first half of the values;
        - ``parameters``, free ones; ``seconds`` of the fit; ``frozen``, nats with draws that keep their weights, and
          ``draws``, how many of them are in effect; ``note``.

    Raises
    ------
    ParameterError
        For no model, other objects than models, names that are the same as text, or an unknown ``per``.
    DataError
        If no step is scored by all models, or a forecaster from elsewhere forecasts NaN.
    HistoryError
        For ``ps.TRAINING`` with forecasters from elsewhere only, whose training data are not known.

    Examples
    --------
    >>> import probseq as ps
    >>> level = ps.datasets.lake_huron()
    >>> train, test = ps.split(level, horizon=30)
    >>> models = {"walk": ps.RandomWalk().fit(train), "independent": ps.IID().fit(train)}
    >>> ps.compare(models, test, history=train).table["nats"].round(1).to_dict()
    {'walk': -1.2, 'independent': -1.6}
    """
    named = _named(models)
    if per not in ("value", "step", "sequence"):
        raise ParameterError(got=f"per={per!r}", expected='"value", "step" or "sequence"', remedy="Choose one of them.")
    own = {name: model for name, model in named.items() if isinstance(model, SequenceEstimator)}
    found = {}
    for name, model in own.items():
        uses_inputs = model.model_.n_covariates > 0
        values = without_inputs(X) if isinstance(X, Sequences) and not uses_inputs else X
        data = model._read(values, lengths, covariates if uses_inputs else None)
        found[name] = collect(name, model, data, history)
    if len(own) < len(named):
        first = next(iter(own), None)
        data = without_inputs(sequences(X, lengths=lengths) if first is None else found[first].data)
        past = _past(None if first is None else own[first], history)
        for name, forecaster in named.items():
            if not isinstance(forecaster, SequenceEstimator):
                found[name] = collect_foreign(name, forecaster, data, past)
    return Comparison([found[name] for name in named], per)


def _past(model: SequenceEstimator | None, history: Any) -> Sequences | None:
    """What came before the data, for forecasters that cannot read it themselves."""
    if history is None:
        return None
    if history is not TRAINING:
        return without_inputs(sequences(history) if model is None else model._read_past(history))
    past = None if model is None else model.training_
    if past is None or not past.seen().any():
        raise HistoryError(
            got="history=ps.TRAINING for forecasters whose training data are not known",
            expected="the data before X",
            remedy="Pass history=train.",
        )
    return without_inputs(past)


def _named(models: Any) -> dict[str, SequenceEstimator | ForeignForecaster]:
    if _takes_part(models):
        models = [models]
    if not isinstance(models, Mapping | list | tuple):
        raise ParameterError(
            got=f"models of type {type(models).__name__}",
            expected="a dict or list of fitted models",
            remedy="Fit some.",
        )
    if not isinstance(models, Mapping):
        models = dict(zip(unique_names([type(one).__name__ for one in models]), models, strict=True))
    if not models:
        raise ParameterError(got="no model", expected="at least one fitted model", remedy="Pass a dict of models.")
    for name, model in models.items():
        if not _takes_part(model):
            raise ParameterError(
                got=f"{type(model).__name__} under the name {name!r}",
                expected="a fitted probseq model, or a forecaster with fit(y) and forecast(horizon, history)",
                remedy="Fit it with probseq first, or give it these two methods.",
            )
        if isinstance(model, SequenceEstimator):
            model._check_fitted()
    if len({str(name) for name in models}) < len(models):
        raise ParameterError(
            got=f"the names {list(models)}", expected="names that differ as text", remedy="Rename one of them."
        )
    return {str(name): model for name, model in models.items()}


def _takes_part(model: Any) -> bool:
    if isinstance(model, SequenceEstimator):
        return True
    return isinstance(model, ForeignForecaster) and not isinstance(model, type | PerSequence)
