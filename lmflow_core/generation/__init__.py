"""From a model's tokens to answers: text, chat models, sessions, prompt files."""
