"""SmolLM2-135M-Instruct for LMFlow, from a package instead of a hub."""

__version__ = "0.1.0"
