"""The core of LMFlow: names, contracts and the order of work. It holds no feature and never imports torch."""

__version__ = "0.1.0"
