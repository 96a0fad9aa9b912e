"""Position scalings, some of which are sound; each of the others has the fault its docstring names."""

import math
from dataclasses import replace

import torch

_times = 0


def _with(rope, reach, /, **changes):
    return replace(rope, parameters={**rope.parameters, **changes}, length=round(rope.length * reach))


def sound(rope, factor, options):
    """Slows all frequencies alike."""
    return _with(rope, factor, rope_type="linear", factor=factor)


def sound_base(rope, factor, options):
    """Raises the base by the square of the factor."""
    return _with(rope, factor, rope_theta=rope.parameters["rope_theta"] * factor**2)


def one_off(rope, factor, options):
    """Adds 1 to the factor."""
    return _with(rope, factor, rope_type="linear", factor=factor + 1)


def keeps_length(rope, factor, options):
    """Leaves the length as it was."""
    return replace(sound(rope, factor, options), length=rope.length)


def grows_twice(rope, factor, options):
    """Multiplies the length by the factor twice."""
    return replace(sound(rope, factor, options), length=round(rope.length * factor**2))


def gives_tensors(rope, factor, options):
    """Gives a tensor as a parameter."""
    return _with(rope, factor, rope_theta=torch.tensor(rope.parameters["rope_theta"] * factor**2))


def own_type(rope, factor, options):
    """Names a type that transformers does not have."""
    return _with(rope, factor, rope_type="ntk", factor=factor)


def changes_given(rope, factor, options):
    """Writes into the parameters it is given."""
    rope.parameters.update(rope_type="linear", factor=factor)
    return replace(rope, length=round(rope.length * factor))


def remembers(rope, factor, options):
    """Takes the largest factor it was ever called with."""
    global _times
    _times = max(_times, factor) if factor > 1 else _times
    return _with(rope, factor, rope_type="linear", factor=max(factor, _times) if factor > 1 else 1.0)


def changes_torch(rope, factor, options):
    """Computes with the number format of the whole process."""
    torch.set_default_dtype(torch.float64)
    return sound(rope, factor, options)


def speeds_up(rope, factor, options):
    """Multiplies frequencies where it should divide them."""
    return _with(rope, factor, rope_type="linear", factor=1 / factor)


def scales_nothing(rope, factor, options):
    """Promises a length and changes no frequency."""
    return _with(rope, factor)


def stops_growing(rope, factor, options):
    """Slows less by large factors than by small ones."""
    return _with(rope, factor, rope_type="linear", factor=factor if factor < 8 else 1 + math.log(factor) / 8)


def sharpens(rope, factor, options):
    """Changes the attention at a factor of 1."""
    more = {"original_max_position_embeddings": rope.length, "attention_factor": 1.1}
    return _with(rope, factor, rope_type="yarn", factor=factor, **more)
