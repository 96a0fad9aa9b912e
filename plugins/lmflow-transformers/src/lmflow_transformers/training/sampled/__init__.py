"""Rounds of sampled answers: prompts are answered, the answers scored, and lessons made of them."""
