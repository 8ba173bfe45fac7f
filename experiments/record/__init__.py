"""What is kept of a run: its values, its files, its identity, and its description in words."""
