"""Labels: labelled frames, files of them, and a queue that computes them in parallel."""
