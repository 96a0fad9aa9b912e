"""What people read: notes, tables, progress and plots."""
