"""How tests share a machine: which go first, and how many threads each process takes."""

from __future__ import annotations

import os

import pytest


def pytest_configure() -> None:
    """Let each of several processes compute on one thread; what they start is free to take more."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        import torch

        torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the slow ones: several processes that share the tests would else wait for the last of them alone."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
