"""A network that is spread over processes, used outside of a forward pass of training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lmflow_transformers.sharding import gathered_as_needed, kept_whole
from lmflow_transformers.shards import all_whole, is_sharded, reshard
from lmflow_transformers.training.loss import Result


def run_in_step(module: Any, network: Any, action: Callable[[], Result]) -> Result:
    """Return what a function returns that all processes run alike: weights are whole while their module computes.

    Args:
        module: the network with its loss.
        network: the transformers model in it.
        action: runs the network, before DeepSpeed does.
    """
    if is_sharded(module):
        try:
            result: Result = module.reach(action)
            return result
        finally:
            reshard(module)
    with gathered_as_needed(network):
        return action()


def run_whole(module: Any, action: Callable[[], Result]) -> Result:
    """Return what a function returns that each process runs by itself: all weights are whole meanwhile.

    Args:
        module: the network with its loss.
        action: runs the network as often as it likes.
    """
    if is_sharded(module):
        return run_in_step(module, None, lambda: _run_unsharded(module, action))
    with kept_whole(module):
        return action()


def _run_unsharded(module: Any, action: Callable[[], Result]) -> Result:
    with all_whole(module):
        return action()
