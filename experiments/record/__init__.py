"""The record of a run: its values, its files, its identity, and a description."""
