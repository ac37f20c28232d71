"""Memory that is handed out again, and never while somebody still looks at it."""

from __future__ import annotations

import threading

import numpy as np
import torch

from probseq._memory import spare

SHAPE = (3, 50_000)


def address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def test_memory_is_reused_once_nobody_refers_to_it() -> None:
    first = spare(SHAPE)
    place = address(first)
    del first
    assert address(spare(SHAPE)) == place


def test_a_view_or_a_tensor_keeps_the_memory() -> None:
    first = spare(SHAPE)
    first.fill(1.0)
    view, tensor = first[0, ::2], torch.from_numpy(first[1:])
    place = address(first)
    del first
    second = spare(SHAPE)
    second.fill(2.0)
    assert address(second) != place
    assert (view == 1.0).all() and bool((tensor == 1.0).all())
    del view
    assert address(spare(SHAPE)) != place
    del tensor
    third = [spare(SHAPE) for _ in range(2)]
    assert place in [address(one) for one in third]


def test_threads_do_not_share() -> None:
    mine = address(spare(SHAPE))
    theirs: list[np.ndarray] = []
    thread = threading.Thread(target=lambda: theirs.append(spare(SHAPE)))
    thread.start()
    thread.join()
    assert address(theirs[0]) != mine


def test_kinds_and_sizes() -> None:
    flags = spare((7, 100_000), np.bool_)
    assert flags.dtype == bool and flags.shape == (7, 100_000) and flags.flags.c_contiguous
    assert spare((0, 4)).shape == (0, 4)
    assert spare((3000, 3000)).shape == (3000, 3000)
