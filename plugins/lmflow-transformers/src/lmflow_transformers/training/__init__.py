"""Training on the Hugging Face ``Trainer``, with padding-free batches and a label-only loss."""
