"""Continuous batching: answers that share the passes of a model, as they come and go."""
