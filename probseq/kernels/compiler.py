"""The decorator that compiles every numerical kernel of the library."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
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
    """Make the cached code depend on all kernels.

    numba looks at the file of a function only. Kernels inline each other across files, so that a change in one would
    leave stale code in the callers.
    """
    file: Any = getattr(getattr(compiled, "_cache", None), "_cache_file", None)
    if hasattr(file, "_source_stamp"):
        file._source_stamp = (file._source_stamp, _DIGEST)


def _digest() -> str:
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


_DIGEST = _digest()
