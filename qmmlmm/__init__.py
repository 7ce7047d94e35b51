"""QM/ML/MM simulations in one OpenMM System.

OpenMM carries protein and solvent with PME, a learned potential embedded in that field treats the active
region, and PySCF corrects it on the fly.
"""

from importlib.metadata import version as _version

from qmmlmm.coupling.hamiltonian import Hamiltonian, Term
from qmmlmm.coupling.region import Region
from qmmlmm.ml.ml_potential import MLPotential
from qmmlmm.mm.creation import create_mixed_system
from qmmlmm.mm.electrostatics import suggest_charge
from qmmlmm.mm.force_field_potential import ForceFieldPotential
from qmmlmm.mm.mixed_system import MixedSystem
from qmmlmm.mm.openmm_potential import OpenMMMLPotential, OpenMMPotential
from qmmlmm.mm.selection import select
from qmmlmm.qm import PySCFPotential

__version__ = _version("qmmlmm")

__all__ = [
    "ForceFieldPotential",
    "Hamiltonian",
    "MLPotential",
    "MixedSystem",
    "OpenMMMLPotential",
    "OpenMMPotential",
    "PySCFPotential",
    "Region",
    "Term",
    "create_mixed_system",
    "select",
    "suggest_charge",
]
