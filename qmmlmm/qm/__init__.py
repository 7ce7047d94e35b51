"""Quantum chemistry with PySCF: the only importer of pyscf."""
