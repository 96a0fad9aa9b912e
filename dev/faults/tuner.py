"""Tuners, one of which is sound; each of the others has the fault its docstring names."""

import torch

from lmflow_core.api import TrainingCallback
from lmflow_transformers.api import FullTuner, parameter_groups


class _Change(TrainingCallback):
    def __init__(self, weight):
        self._weight = weight

    def on_end(self, state):
        with torch.no_grad():
            self._weight.add_(0.01)


class _NormTuner(FullTuner):
    def prepare(self, model, seed):
        model.network.requires_grad_(False)
        for name, parameter in model.network.named_parameters():
            parameter.requires_grad_("layernorm" in name)


class Sound(FullTuner):
    """Trains every weight."""


class SoundNorms(_NormTuner):
    """Trains the norms alone."""


class TrainsFrozen(_NormTuner):
    """Changes a weight that is in no group."""

    def callbacks(self, model, seed):
        return [_Change(model.network.get_input_embeddings().weight)]


class TrainsNothing(FullTuner):
    """Updates copies of the weights in the place of the weights."""

    def parameter_groups(self, model):
        (first, *_) = parameter_groups(model.network)
        copies = {name: torch.nn.Parameter(p.detach().clone()) for name, p in first.parameters.items()}
        return [type(first)(copies)]


class LeavesSomeOut(FullTuner):
    """Lets weights have gradients that no group holds."""

    def parameter_groups(self, model):
        return parameter_groups(model.network)[:1]


class GroupsTwice(FullTuner):
    """Has weights in two groups."""

    def parameter_groups(self, model):
        groups = parameter_groups(model.network)
        return [*groups, groups[0]]


class IgnoresSeed(FullTuner):
    """Samples fresh weights without the seed."""

    def prepare(self, model, seed):
        super().prepare(model, seed)
        with torch.no_grad():
            model.network.get_input_embeddings().weight.add_(torch.rand(1) * 0.001)


class ForgetsState(FullTuner):
    """Keeps state in a callback that a checkpoint does not hold."""

    def callbacks(self, model, seed):
        class Counting(TrainingCallback):
            steps = 0

            def on_step(self, state):
                self.steps += 1
                with torch.no_grad():
                    model.network.get_input_embeddings().weight.mul_(1 - 0.001 * self.steps)

        return [Counting()]


class SavesStart(FullTuner):
    """Saves the weights from before training."""

    def prepare(self, model, seed):
        super().prepare(model, seed)
        self._start = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}

    def save(self, model, destination):
        trained = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
        model.network.load_state_dict(self._start)
        super().save(model, destination)
        model.network.load_state_dict(trained)


class WritesEverywhere(FullTuner):
    """Writes in every process of a job."""

    def save(self, model, destination):
        model.save(destination.folder, destination.chat_template, destination.weights)


class SavesPickled(FullTuner):
    """Writes a pickled file beside the weights."""

    def save(self, model, destination):
        super().save(model, destination)
        if destination.is_main:
            torch.save({}, destination.folder / "extra.pt")


class FalseReference(FullTuner):
    """Gives the trained model as the one from before."""

    def reference(self, model):
        return torch.no_grad()


class AttachesAnything(FullTuner):
    """Takes any folder for an adapter."""

    def attach(self, model, folder):
        pass


class TrainsBackwards(FullTuner):
    """Raises the loss."""

    def parameter_groups(self, model):
        return [
            type(group)(group.parameters, -group.lr_factor, group.decays) for group in super().parameter_groups(model)
        ]


class LacksAttribute(FullTuner):
    """Does not say whether it freezes weights in a run."""

    @property
    def freezes_while_training(self):
        raise AttributeError("freezes_while_training")
