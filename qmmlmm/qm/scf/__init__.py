"""The mean field of a QM region: guesses from earlier geometries, and attempts to converge."""
