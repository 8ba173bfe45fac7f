"""Measurements of a TFLite file: accuracy, fidelity, latency, memory."""
