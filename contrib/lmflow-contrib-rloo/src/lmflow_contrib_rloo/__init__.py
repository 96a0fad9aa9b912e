"""Learning from rewards for sampled answers (REINFORCE leave-one-out)."""

__version__ = "0.1.0"
