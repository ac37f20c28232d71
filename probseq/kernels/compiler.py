"""The decorator that compiles every numerical kernel of the library."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import IndexDataCacheFile

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
    """Make the cached code depend on the kernels that it may call, and safe to write from several processes.

    numba looks at the file of a function only. Kernels inline each other across files, so that a change in one would
    leave stale code in the callers.
    """
    file: Any = getattr(getattr(compiled, "_cache", None), "_cache_file", None)
    if hasattr(file, "_source_stamp"):
        file._source_stamp = (file._source_stamp, _digest(Path(compiled.py_func.__code__.co_filename)))
    if type(file) is IndexDataCacheFile:
        file.__class__ = _SharedCacheFile


class _SharedCacheFile(IndexDataCacheFile):
    """Cached code in a file named after its signature.

    numba numbers the files. Two processes that compile a function for two signatures at once would give both the same
    number, and the index would lead from one signature to the code of the other. Here the worst is an entry that the
    index lost: it is compiled once more.
    """

    def save(self, key: Any, data: Any) -> None:
        signature = hashlib.sha256(repr(key).encode()).hexdigest()[:16]
        name = self._index_name.removesuffix("nbi") + f"{signature}.nbc"
        self._save_data(name, data)
        overloads = self._load_index()
        if overloads.get(key) != name:
            self._save_index({**overloads, key: name})


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
