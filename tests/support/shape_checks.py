"""Checks of the array shapes that annotations promise, switched on in the test run only."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

from beartype import BeartypeConf, beartype
from jaxtyping import AbstractArray, install_import_hook

_check = beartype(conf=BeartypeConf(is_pep484_tower=True))


def _promises_shape(annotation: Any) -> bool:
    if inspect.isclass(annotation) and issubclass(annotation, AbstractArray):
        return True
    return any(_promises_shape(part) for part in get_args(annotation))


def check_shapes(function: Callable[..., Any]) -> Callable[..., Any]:
    """Check the annotated shapes of one function and nothing else.

    The other annotations are left to mypy: what a user passes wrongly has to reach the library's own errors.
    """
    annotations = getattr(function, "__annotations__", {})
    shaped = {name: hint for name, hint in annotations.items() if _promises_shape(hint)}
    if not shaped:
        return function
    function.__annotations__ = shaped
    return _check(function)


def switch_on(package: str, root: Path) -> None:
    """Check shapes in every module of a package that imports jaxtyping, when it is imported later.

    Compiled kernels are left out: numba has to see the function itself.
    """
    modules = []
    for path in sorted((root / package).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if "jaxtyping" in path.read_text(encoding="utf-8") and "kernels" not in parts and parts[-1] != "__init__":
            modules.append(".".join(parts))
    install_import_hook(modules, "shape_checks.check_shapes")
