"""Alanine dipeptide in water or in vacuum: see README.md."""

from systems.alanine_dipeptide.builder import PEPTIDE, build

__all__ = ["PEPTIDE", "build"]
