"""Export to the form that mlx-lm loads, quantised or not."""

__version__ = "0.1.0"
