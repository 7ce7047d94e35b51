"""QM/ML/MM simulations in one OpenMM System.

OpenMM computes protein and solvent with PME, a learned potential in that field computes the active region, and PySCF
corrects it during the simulation.
"""

from importlib import import_module as _import_module
from importlib.metadata import version as _version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qmmlmm.coupling.hamiltonian import Hamiltonian, Term
    from qmmlmm.coupling.potential_check import check_potential
    from qmmlmm.coupling.region import Region
    from qmmlmm.ml.embedded_potential import EmbeddedPotential
    from qmmlmm.ml.ml_potential import MLPotential
    from qmmlmm.mm.creation import create_mixed_system
    from qmmlmm.mm.electrostatics import suggest_charge
    from qmmlmm.mm.force_field_potential import ForceFieldPotential
    from qmmlmm.mm.force_field_system import ForceFieldSystem
    from qmmlmm.mm.held_atoms import hold
    from qmmlmm.mm.mixed_system import MixedSystem
    from qmmlmm.mm.openmm_potential import OpenMMMLPotential, OpenMMPotential
    from qmmlmm.mm.selection import select
    from qmmlmm.qm.potential import PySCFPotential
    from qmmlmm.xtb.potential import XTBPotential

__version__ = _version("qmmlmm")

__all__ = [
    "EmbeddedPotential",
    "ForceFieldPotential",
    "ForceFieldSystem",
    "Hamiltonian",
    "MLPotential",
    "MixedSystem",
    "OpenMMMLPotential",
    "OpenMMPotential",
    "PySCFPotential",
    "Region",
    "Term",
    "XTBPotential",
    "check_potential",
    "create_mixed_system",
    "hold",
    "select",
    "suggest_charge",
]

# Imported at the first use: `import qmmlmm` loads neither torch nor PySCF.
_HOMES = {
    "EmbeddedPotential": "qmmlmm.ml.embedded_potential",
    "ForceFieldPotential": "qmmlmm.mm.force_field_potential",
    "ForceFieldSystem": "qmmlmm.mm.force_field_system",
    "Hamiltonian": "qmmlmm.coupling.hamiltonian",
    "MLPotential": "qmmlmm.ml.ml_potential",
    "MixedSystem": "qmmlmm.mm.mixed_system",
    "OpenMMMLPotential": "qmmlmm.mm.openmm_potential",
    "OpenMMPotential": "qmmlmm.mm.openmm_potential",
    "PySCFPotential": "qmmlmm.qm.potential",
    "Region": "qmmlmm.coupling.region",
    "Term": "qmmlmm.coupling.hamiltonian",
    "XTBPotential": "qmmlmm.xtb.potential",
    "check_potential": "qmmlmm.coupling.potential_check",
    "create_mixed_system": "qmmlmm.mm.creation",
    "hold": "qmmlmm.mm.held_atoms",
    "select": "qmmlmm.mm.selection",
    "suggest_charge": "qmmlmm.mm.electrostatics",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return vars(_import_module(_HOMES[name]))[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
