"""T4 lysozyme L99A with p-xylene in water: see README.md."""

from systems.t4_lysozyme.builder import LIGAND, build

__all__ = ["LIGAND", "build"]
