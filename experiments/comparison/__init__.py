"""The comparison: runs as a table, for people and for files, and what follows from it."""
