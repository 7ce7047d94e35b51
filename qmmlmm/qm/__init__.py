"""Quantum chemistry with PySCF: the only importer of pyscf.

Importing this package does not need pyscf; making a potential does.
"""

from qmmlmm.qm.excited import CASSCF, TDA, TDDFT, DeltaSCF
from qmmlmm.qm.potential import PySCFPotential

__all__ = ["CASSCF", "TDA", "TDDFT", "DeltaSCF", "PySCFPotential"]
