"""New plugins, written from texts: ``common`` has what all have, ``kinds`` one file for each extension point."""
