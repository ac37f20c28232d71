"""Errors and warnings: what came, what was expected, what to do."""

from __future__ import annotations

__all__ = [
    "ApproximationWarning",
    "ConvergenceWarning",
    "CovariateError",
    "DataError",
    "DataTypeError",
    "DataWarning",
    "DegenerateWarning",
    "EmptyDataError",
    "FileFormatError",
    "GlyphError",
    "HistoryError",
    "HorizonError",
    "IncompatibleError",
    "IndexWarning",
    "NotFittedError",
    "ParameterError",
    "ProbseqError",
    "ProbseqWarning",
    "ShapeError",
    "SupportError",
    "UnsupportedError",
    "VocabularyError",
]


class ProbseqError(Exception):
    """Base of every error that probseq raises on purpose.

    Parameters
    ----------
    got, expected, remedy : str
        What came, what was expected, and what to do about it. They make the message and stay readable as attributes.
    """

    def __init__(self, *, got: str, expected: str, remedy: str = "") -> None:
        self.got, self.expected, self.remedy = got, expected, remedy
        text = f"Got {got}. Expected {expected}."
        super().__init__(f"{text} {remedy}" if remedy else text)

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.got, self.expected, self.remedy)


def _rebuild(cls: type[ProbseqError], got: str, expected: str, remedy: str) -> ProbseqError:
    return cls(got=got, expected=expected, remedy=remedy)


class DataError(ProbseqError, ValueError):
    """The data cannot be used as it is."""


class DataTypeError(DataError, TypeError):
    """An object that is no sequence of numbers or tokens: None, a dict inside an array, a sparse matrix."""


class ShapeError(DataError):
    """The data have the wrong number of dimensions, steps or variables."""


class EmptyDataError(DataError):
    """Nothing to learn from or to score: no sequence, no step, or no value that is not missing."""


class SupportError(DataError):
    """A value that the model gives probability zero by construction (a negative count, the log of zero)."""


class VocabularyError(DataError):
    """A token that the model's vocabulary does not know."""


class CovariateError(DataError):
    """Covariates are missing, superfluous or do not match the data."""


class HistoryError(DataError):
    """The history and the data that follow it do not fit together."""


class HorizonError(ProbseqError, ValueError):
    """A forecast was asked for a number of steps that does not make sense."""


class ParameterError(ProbseqError, ValueError):
    """A hyper-parameter or a parameter value is not allowed."""


class IncompatibleError(ProbseqError, ValueError, TypeError):
    """Two parts that cannot work together, such as EM for a recurrent network."""


class NotFittedError(ProbseqError, ValueError, AttributeError):
    """A method that needs a fitted model was called before ``fit``."""


class UnsupportedError(ProbseqError, TypeError):
    """This object cannot answer that question; the message says which one can."""


class FileFormatError(ProbseqError, ValueError):
    """A file that is not a probseq model, is damaged, or was written by a version that is not known here."""


class GlyphError(ProbseqError, ValueError):
    """A text of a picture has a character for which there is no font."""


class ProbseqWarning(UserWarning):
    """Base of every warning that probseq issues on purpose."""


class ConvergenceWarning(ProbseqWarning):
    """The optimiser stopped before its criterion was met."""


class DegenerateWarning(ProbseqWarning):
    """A fit collapsed: a variance at its floor, an empty state, a unit root."""


class ApproximationWarning(ProbseqWarning):
    """An exact answer does not exist or costs too much; an approximation with a named budget was used."""


class IndexWarning(ProbseqWarning):
    """The time index cannot be extended, so steps are counted."""


class DataWarning(ProbseqWarning):
    """Part of what was given is ignored."""
