"""Quantum chemistry with PySCF: the only importer of pyscf.

Importing this package does not need pyscf; making a potential does.
"""

from qmmlmm.qm.excited import TDA, TDDFT, DeltaSCF
from qmmlmm.qm.potential import PySCFPotential

__all__ = ["TDA", "TDDFT", "DeltaSCF", "PySCFPotential"]
