"""Optimizers, of which the sound ones keep every rule; each of the others has the fault its docstring names."""

import torch

from lmflow_transformers.api import AdamW, torch_groups


class Momentum(torch.optim.Optimizer):
    """A plain rule: decay, then a step along a mean of the gradients."""

    def __init__(self, groups):
        super().__init__(groups, {"lr": 0.01, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self.update(parameter, group)

    def update(self, parameter, group):
        state = self.state[parameter]
        state.setdefault("mean", torch.zeros_like(parameter)).lerp_(parameter.grad, 0.5)
        parameter.mul_(1 - group["lr"] * group["weight_decay"]).sub_(group["lr"] * self.direction(state["mean"]))

    def direction(self, mean):
        return mean


class Sound(AdamW):
    """Follows a mean of the gradients."""

    rule = Momentum

    def __init__(self, options=None):
        pass

    def make(self, groups, settings):
        return self.rule(torch_groups(groups, settings))


class _Sign(Momentum):
    def direction(self, mean):
        return mean.sign()


class SoundSign(Sound):
    """Follows the signs of that mean."""

    rule = _Sign


class ForgetsGroups(Sound):
    """Updates the first group alone."""

    def make(self, groups, settings):
        return self.rule(torch_groups(groups[:1], settings))


class IgnoresFactors(Sound):
    """Gives every group the same learning rate."""

    def make(self, groups, settings):
        return self.rule([{**group, "lr": settings.lr} for group in torch_groups(groups, settings)])


class DecaysAll(Sound):
    """Lets weight decay apply everywhere."""

    def make(self, groups, settings):
        alike = [{**group, "weight_decay": settings.weight_decay} for group in torch_groups(groups, settings)]
        return self.rule(alike)


class NeverDecays(Sound):
    """Leaves weight decay out."""

    def make(self, groups, settings):
        return self.rule([{**group, "weight_decay": 0.0} for group in torch_groups(groups, settings)])


class _Fixed(Momentum):
    def update(self, parameter, group):
        group = {**group, "lr": self.defaults.setdefault("first", group.get("initial_lr", group["lr"]))}
        super().update(parameter, group)


class IgnoresSchedules(Sound):
    """Keeps the learning rate it began with."""

    rule = _Fixed


class _Hidden(Momentum):
    def __init__(self, groups):
        super().__init__(groups)
        self._means = {}

    def update(self, parameter, group):
        mean = self._means.setdefault(parameter, torch.zeros_like(parameter)).lerp_(parameter.grad, 0.5)
        parameter.mul_(1 - group["lr"] * group["weight_decay"]).sub_(group["lr"] * mean)


class HidesState(Sound):
    """Keeps state that no checkpoint holds."""

    rule = _Hidden


class _Thing:
    pass


class _Odd(Momentum):
    def update(self, parameter, group):
        super().update(parameter, group)
        self.state[parameter]["thing"] = _Thing()


class OddState(Sound):
    """Keeps an object in its state that cannot be loaded safely."""

    rule = _Odd


class _Upwards(Momentum):
    def direction(self, mean):
        return -mean


class Upwards(Sound):
    """Climbs."""

    rule = _Upwards


class _Jittery(Momentum):
    def direction(self, mean):
        return mean * (1 + 1e-3 * torch.rand(1))


class Jittery(Sound):
    """Adds noise that no state holds."""

    rule = _Jittery


class _Untouched(Momentum):
    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
        super().step()


class TouchesUnused(Sound):
    """Takes a missing gradient for one of zeros."""

    rule = _Untouched


class _MatricesOnly(Momentum):
    def update(self, parameter, group):
        if parameter.dim() == 2:
            super().update(parameter, group)


class MatricesOnly(Sound):
    """Updates nothing but matrices."""

    rule = _MatricesOnly


class KeepsAverage(Sound):
    """Leaves the weights for use in the place of those that train."""

    def use_weights(self, optimizer, *, training):
        if not training:
            with torch.no_grad():
                for group in optimizer.param_groups:
                    for parameter in group["params"]:
                        parameter.mul_(0.999)
