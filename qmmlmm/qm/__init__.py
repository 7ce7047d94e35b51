"""Quantum chemistry with PySCF.

Only this package imports pyscf, which is needed to create a potential and not to import the package.
"""

from qmmlmm.qm.excited import CASSCF, TDA, TDDFT, DeltaSCF
from qmmlmm.qm.potential import PySCFPotential

__all__ = ["CASSCF", "TDA", "TDDFT", "DeltaSCF", "PySCFPotential"]
