"""The suite's specification: a tier without TensorFlow, one with it, and one through the real command line."""
