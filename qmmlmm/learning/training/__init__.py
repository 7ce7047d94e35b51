"""Training of learned potentials: fit, prediction, uncertainty and report."""
