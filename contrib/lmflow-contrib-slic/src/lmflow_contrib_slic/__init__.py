"""Learning from pairs of answers by rank calibration (SLiC-HF)."""

__version__ = "0.1.0"
