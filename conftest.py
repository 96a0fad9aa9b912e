"""How tests share a machine: which go first, and how many threads each process takes."""

from __future__ import annotations

import os

import pytest


def pytest_configure() -> None:
    """Let each of several processes, and what it starts, compute on one thread: threads that wait for each other on
    cores that others hold are many times slower.
    """
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.environ["OMP_NUM_THREADS"] = "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the slow ones: several processes that share the tests would else wait for the last of them alone."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
