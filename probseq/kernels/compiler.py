"""The decorator that compiles every numerical kernel of the library."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba

_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy"}


def kernel(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Compile a module-level function to machine code, kept in the cache folder of numba where one is writable.

    The function runs without the interpreter lock and divides as numpy does (1/0 is inf). Functions made inside other
    functions never hit the cache, so only module-level functions belong here.

    Parameters
    ----------
    function
        the function, when used as ``@kernel``.
    **options
        further options of ``numba.njit``, as in ``@kernel(fastmath={"contract"})``. Never ``fastmath=True``: it makes
        ``isnan(nan)`` false.
    """
    if function is None:
        return lambda later: kernel(later, **options)
    settings = {**_OPTIONS, **options}
    try:
        compiled = numba.njit(cache=True, **settings)(function)
        _renew(compiled)
        return compiled
    except RuntimeError:
        # numba raises at decoration when neither __pycache__ nor NUMBA_CACHE_DIR nor the user's cache is writable.
        return numba.njit(**settings)(function)


def _renew(compiled: Any) -> None:
    """Make the cached code depend on the kernels that it may call.

    numba looks at the file of a function only. Kernels inline each other across files, so that a change in one would
    leave stale code in the callers.
    """
    file: Any = getattr(getattr(compiled, "_cache", None), "_cache_file", None)
    if hasattr(file, "_source_stamp"):
        file._source_stamp = (file._source_stamp, _digest(Path(compiled.py_func.__code__.co_filename)))


@cache
def _digest(path: Path) -> str:
    """Of a file and of all files beside it that it imports, directly or not."""
    found, new = set(), {path}
    while new:
        found |= new
        texts = [one.read_text(encoding="utf-8") for one in new]
        names = {name for text in texts for line in _IMPORT.findall(text) for name in _WORD.findall(line)}
        new = {_HERE / f"{name}.py" for name in names if (_HERE / f"{name}.py").exists()} - found
    digest = hashlib.sha256()
    for one in sorted(found):
        digest.update(one.read_bytes())
    return digest.hexdigest()


_HERE = Path(__file__).parent
_IMPORT = re.compile(r"from probseq\.kernels([^(\n]*import(?: *\([^)]*\)|[^\n]*))")
_WORD = re.compile(r"\w+")
