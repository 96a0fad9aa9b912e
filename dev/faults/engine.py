"""Engines, the first of which is sound; each of the others has the fault its docstring names."""

import os
import sys
import tempfile
from contextlib import contextmanager

from lmflow_core.api import RequestError, World


class Sound:
    """One process."""

    def __init__(self, options=None):
        pass

    @contextmanager
    def start(self):
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise RequestError("one of several processes: leave out --engine")
        yield World()

    def plan(self, plan):
        return plan

    def spread(self, module):
        pass

    def all_gather(self, value):
        return [value]

    def full_weights(self, model):
        return None

    def trainer_arguments(self):
        return {}


class LeavesVariables(Sound):
    """Leaves a variable behind."""

    @contextmanager
    def start(self):
        with super().start() as world:
            os.environ["AYE"] = "1"
            yield world


class LeavesFolder(Sound):
    """Leaves the working directory, when something fails."""

    @contextmanager
    def start(self):
        before = os.getcwd()
        with super().start() as world:
            os.chdir(tempfile.gettempdir())
            yield world
            os.chdir(before)


class SwallowsErrors(Sound):
    """Ends without a word when something fails."""

    @contextmanager
    def start(self):
        with super().start() as world:
            try:
                yield world
            except Exception as error:
                print(error, file=sys.stderr)


class CountsFromOne(Sound):
    """Gives the only process rank 1."""

    @contextmanager
    def start(self):
        with super().start():
            yield World(1, 1)


class GathersTexts(Sound):
    """Makes texts of what is passed."""

    def all_gather(self, value):
        return [str(value)]


class GathersOne(Sound):
    """Gives the value, where a list of all is asked for."""

    def all_gather(self, value):
        return value


class OwnArguments(Sound):
    """Adds an argument that the trainer does not know."""

    def trainer_arguments(self):
        return {"ship": "sloop"}


class NoPlan(Sound):
    """Forgets to give the plan back."""

    def plan(self, plan):
        pass


class LosesWeights(Sound):
    """Gathers the first weight alone."""

    def full_weights(self, model):
        return dict(list(model.network.state_dict().items())[:1])


class IgnoresOthers(Sound):
    """Takes itself for the only process, whatever the launcher says."""

    @contextmanager
    def start(self):
        yield World()


class ReversesRanks(Sound):
    """Gathers in the order of the ranks, backwards."""

    @contextmanager
    def start(self):
        import torch

        if "RANK" not in os.environ:
            raise RequestError("start it with torchrun")
        torch.distributed.init_process_group("gloo")
        try:
            yield World(torch.distributed.get_rank(), torch.distributed.get_world_size())
        finally:
            torch.distributed.destroy_process_group()

    def all_gather(self, value):
        import torch

        values = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(values, value)
        return values[::-1]


class NeverRefuses(Sound):
    """Is one process where its launcher is not there, and in each that it started."""

    @contextmanager
    def start(self):
        yield World()


class LaunchesUnasked(Sound):
    """Has a launcher that takes every command for its own."""


class UnaskedLauncher:
    """Starts what nobody asked for."""

    def __init__(self, options=None):
        pass

    def launch(self, command):
        return 0


class LaunchesHeavily(Sound):
    """Has a launcher that holds torch while the processes run."""


class HeavyLauncher(UnaskedLauncher):
    """Imports torch to count GPUs."""

    def launch(self, command):
        import torch

        return None if torch.cuda.device_count() < 2 else 0
