"""Objects as JSON with named tensors, and back: what a file holds of a model's arguments and of what a fit found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution

from probseq._types import Configuration, Record
from probseq.errors import FileFormatError, ParameterError
from probseq.estimators.base import SequenceEstimator

__all__ = ["Reader", "Writer", "subclasses"]

_STREAMS = np.random.Generator | np.random.RandomState | np.random.SeedSequence | torch.Generator


class Writer:
    """Turns objects into JSON.

    Numbers, text and None stay what they are. Tuples, lists, dicts, configurations (by their arguments), laws of
    ``torch.distributions`` and records (by their fields) become objects that say which of these they are. A tensor, an
    array or a record that occurs twice is written once and read as one object again.

    Attributes
    ----------
    tensors : dict
        The arrays that were met, named by where they were met first.
    records : list
        The records that were met, those inside others first.
    """

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self.records: list[dict[str, Any]] = []
        # With the objects themselves: an id may be used again once its object is gone.
        self._met: dict[int, tuple[Any, dict[str, Any]]] = {}

    def write(self, value: Any, path: str) -> Any:
        """JSON of a value; ``path`` says where it is, for the names of tensors and for messages.

        Raises
        ------
        ParameterError
            For an object that a file cannot hold.
        """
        if isinstance(value, _STREAMS):
            return None  # it cannot be kept; the loaded model draws anew
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, np.bool_):
            return bool(value)
        if isinstance(value, np.integer | np.floating):
            return int(value) if isinstance(value, np.integer) else float(value)
        if id(value) not in self._met:
            self._met[id(value)] = (value, self._written(value, path))
        return self._met[id(value)][1]

    def _written(self, value: Any, path: str) -> dict[str, Any]:
        if isinstance(value, Tensor):
            return {"tensor": self._add(value.detach().cpu(), path)}
        if isinstance(value, np.ndarray) and value.dtype.kind in "fiub" and value.dtype.itemsize <= 8:
            native = np.array(value, dtype=value.dtype.newbyteorder("="), order="C")
            return {"numpy": self._add(torch.from_numpy(native), path)}
        if isinstance(value, np.ndarray) and value.dtype.kind in "OU":
            return {"array": self.write(value.tolist(), path), "dtype": str(value.dtype)}
        if isinstance(value, Record):
            held = {f.name: self.write(getattr(value, f.name), f"{path}.{f.name}") for f in fields(value)}  # type: ignore[arg-type]
            self.records.append({"class": type(value).__name__, "fields": held})
            return {"record": len(self.records) - 1}
        if isinstance(value, Configuration | SequenceEstimator):
            given = value.get_params(deep=False)
            left_out = value.not_saved if isinstance(value, Configuration) else ()
            params = {n: self.write(one, f"{path}.{n}") for n, one in given.items() if n not in left_out}
            return {"class": type(value).__name__, "params": params}
        if isinstance(value, list | tuple):
            kind = "tuple" if isinstance(value, tuple) else "list"
            return {"sequence": kind, "items": [self.write(v, f"{path}.{i}") for i, v in enumerate(value)]}
        if isinstance(value, Mapping):
            rows = _rows(value)
            if rows is not None:
                return {"rows": self._add(rows, path), "keys": self.write(list(value), path)}
            return {"mapping": [[self.write(k, path), self.write(v, f"{path}.{k}")] for k, v in value.items()]}
        if isinstance(value, slice):
            return {"slice": [value.start, value.stop, value.step]}
        if isinstance(value, Distribution):
            given = {name: getattr(value, name) for name in _law_arguments(value)}
            arguments = {name: self.write(one, f"{path}.{name}") for name, one in given.items()}
            return {"law": _law_name(value), "arguments": arguments}
        raise ParameterError(
            got=f"{path} of type {type(value).__name__}",
            expected="numbers, text, lists, arrays and probseq objects",
            remedy="Leave it out before saving.",
        )

    def _add(self, value: Tensor, path: str) -> str:
        name = path
        while name in self.tensors:
            name += "'"
        # Tensors of a file may not share memory.
        self.tensors[name] = value.clone(memory_format=torch.contiguous_format)
        return name


class Reader:
    """Turns what a `Writer` wrote into objects again; makes objects of known classes only.

    Parameters
    ----------
    tensors : dict
    records : list
    source : str
        What is read, for messages.
    """

    def __init__(self, tensors: Mapping[str, Tensor], records: Iterable[dict[str, Any]], source: str) -> None:
        self._tensors, self._source = tensors, source
        self._configurations = {cls.__name__: cls for cls in subclasses(Configuration) + subclasses(SequenceEstimator)}
        known = {cls.__name__: cls for cls in subclasses(Record)}
        self._records: list[Any] = []
        self._arrays: dict[str, np.ndarray] = {}
        for one in records:
            held = {name: self.read(value) for name, value in one["fields"].items()}
            self._records.append(self._known(known, one["class"])(**held))

    def read(self, written: Any) -> Any:
        """The value of which ``Writer.write`` gave this JSON.

        Raises
        ------
        FileFormatError
            For a class or a form that is not known here.
        """
        if not isinstance(written, dict):
            return written
        match written:
            case {"tensor": name}:
                return self._tensors[name]
            case {"numpy": name}:
                return self._arrays.setdefault(name, self._tensors[name].numpy())
            case {"array": items, "dtype": dtype}:
                return np.asarray(self.read(items), dtype=dtype)
            case {"record": number}:
                return self._records[number]
            case {"class": name, "params": params}:
                return self._known(self._configurations, name)(**{key: self.read(v) for key, v in params.items()})
            case {"sequence": kind, "items": items}:
                values = [self.read(one) for one in items]
                return tuple(values) if kind == "tuple" else values
            case {"rows": name, "keys": keys}:
                return dict(zip(self.read(keys), self._tensors[name].numpy(), strict=True))
            case {"mapping": items}:
                return {self.read(key): self.read(value) for key, value in items}
            case {"slice": [start, stop, step]}:
                return slice(start, stop, step)
            case {"law": name, "arguments": arguments}:
                law = getattr(torch.distributions, name, None)
                if not (isinstance(law, type) and issubclass(law, Distribution)):
                    raise self._unknown(f"distribution {name!r}")
                given: dict[str, Any] = {key: torch.as_tensor(self.read(v)) for key, v in arguments.items()}
                return law(**given)
        raise self._unknown(f"form of a value {sorted(written)}")

    def _known(self, classes: Mapping[str, type], name: str) -> type:
        if name not in classes:
            raise self._unknown(f"class {name!r}")
        return classes[name]

    def _unknown(self, what: str) -> FileFormatError:
        return FileFormatError(
            got=f"an unknown {what} in {self._source}",
            expected="a model made of classes that are known here",
            remedy="Import the module that defines it, or load it with the version of probseq that saved it.",
        )


def subclasses(cls: type) -> list[type]:
    """The classes that derive from a class: ours, and those of code already imported."""
    children: list[type] = cls.__subclasses__()
    return children + [one for child in children for one in subclasses(child)]


def _rows(table: Mapping[Any, Any]) -> Tensor | None:
    """The values of a mapping one below the other, where all are arrays of numbers alike; they may be very many."""
    values = list(table.values())
    first = values[0] if values else None
    if not isinstance(first, np.ndarray) or first.ndim != 1 or first.dtype not in (np.float32, np.float64):
        return None
    alike = all(isinstance(v, np.ndarray) and v.shape == first.shape and v.dtype == first.dtype for v in values)
    return torch.from_numpy(np.stack(values)) if alike else None


def _law_name(law: Distribution) -> str:
    """The name in ``torch.distributions`` of a law, or of the one that Pyro's is made of."""
    for cls in type(law).__mro__:
        if getattr(torch.distributions, cls.__name__, None) is cls and _law_arguments(law):
            return cls.__name__
    raise ParameterError(
        got=f"a hyper-parameter {law!r}",
        expected="a distribution of torch.distributions given by numbers",
        remedy="Leave it out before saving.",
    )


def _law_arguments(law: Distribution) -> list[str]:
    """Names of the arguments that make a law again; where several mean the same, those that it was given."""
    names = list(getattr(law, "arg_constraints", {}))
    return [name for name in names if name in vars(law)] or names
