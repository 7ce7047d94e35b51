"""The coupling: regions, the signed energy expression, cut bonds, and the contract of a potential."""

from qmmlmm.coupling.hamiltonian import Hamiltonian, Term
from qmmlmm.coupling.potential import (
    Capabilities,
    EvaluatedPotential,
    Evaluation,
    Evaluator,
    ExternalField,
    RegionPotential,
    RegionSpecification,
)
from qmmlmm.coupling.potential_check import check_potential
from qmmlmm.coupling.region import Region
from qmmlmm.coupling.state_results import StateResults

__all__ = [
    "Capabilities",
    "EvaluatedPotential",
    "Evaluation",
    "Evaluator",
    "ExternalField",
    "Hamiltonian",
    "Region",
    "RegionPotential",
    "RegionSpecification",
    "StateResults",
    "Term",
    "check_potential",
]
