"""QM/ML/MM simulations in one OpenMM System."""
