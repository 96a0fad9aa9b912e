"""Decoding with classifier-free guidance, towards the prompt and away from another."""

__version__ = "0.1.0"
