"""The order of work, one readable file each."""
