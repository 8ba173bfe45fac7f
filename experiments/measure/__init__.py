"""Measurements of a TFLite file: what it answers, how large it is, how long it takes."""
