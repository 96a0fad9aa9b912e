"""From given values to a resolved request: a command's schema, run files, chosen components."""
