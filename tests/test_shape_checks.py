import importlib

import pytest
from shape_checks import switch_on

SOURCE = """
from __future__ import annotations

import numpy as np
from jaxtyping import Float


def add(a: Float[np.ndarray, "n t"], b: Float[np.ndarray, "t"], repeat: int = 1) -> Float[np.ndarray, "n t"]:
    return a + b


def lose(a: Float[np.ndarray, "n t"]) -> Float[np.ndarray, "t n"]:
    return a
"""


@pytest.fixture
def shaped(tmp_path, monkeypatch):
    package = tmp_path / "shaped"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "arrays.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    switch_on("shaped", root=tmp_path)
    return importlib.import_module("shaped.arrays")


def test_shapes_are_checked_and_other_annotations_are_not(shaped):
    import numpy as np
    from jaxtyping import TypeCheckError

    assert shaped.add(np.zeros((2, 3)), np.ones(3), repeat="twice").shape == (2, 3)
    with pytest.raises(TypeCheckError):
        shaped.add(np.zeros((2, 3)), np.ones(2))
    with pytest.raises(TypeCheckError):
        shaped.lose(np.zeros((2, 3)))


def test_compiled_kernels_import():
    import numba

    from probseq.kernels import recursions

    assert isinstance(recursions.forward, numba.core.registry.CPUDispatcher)
