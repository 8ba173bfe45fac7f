"""Every figure that the README shows: the command that makes it, and the published results with their stamp."""
