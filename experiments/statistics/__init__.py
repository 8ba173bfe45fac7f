"""Estimates with confidence intervals, significance tests, and the formatting of numbers."""
