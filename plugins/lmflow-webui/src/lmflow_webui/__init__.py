"""A web page to talk with LMFlow models."""

__version__ = "0.1.0"
