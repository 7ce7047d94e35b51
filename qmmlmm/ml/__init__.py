"""Machine-learned potentials."""
