"""Estimates with their intervals, tests of differences, and how many digits of them are shown."""
