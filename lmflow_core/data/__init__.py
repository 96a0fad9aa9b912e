"""From files to encoded rows: files -> rows -> examples -> selection -> preparation -> store."""
