"""Results: from tensors to labelled arrays."""

from probseq.results.forecast import Forecast

__all__ = ["Forecast"]
