"""The decorator that compiles every numerical kernel of the library."""

from __future__ import annotations

from collections.abc import Callable
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
        return numba.njit(cache=True, **settings)(function)
    except RuntimeError:
        # numba raises at decoration when neither __pycache__ nor NUMBA_CACHE_DIR nor the user's cache is writable.
        return numba.njit(**settings)(function)
