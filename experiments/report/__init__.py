"""The report: one HTML file with the answer, the evidence, and how to repeat it."""
