"""Machine-learned potentials: wrapped, saved, loaded, and put into OpenMM."""
