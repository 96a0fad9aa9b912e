"""Training that keeps fewer activations."""

from lmflow_transformers.lean.layers import lean_layers
from lmflow_transformers.lean.recomputable import recomputable

__all__ = ["lean_layers", "recomputable"]
