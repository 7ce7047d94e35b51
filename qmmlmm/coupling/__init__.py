"""The coupling: regions, the signed energy expression, cut bonds, and the contract of a potential."""

from qmmlmm.coupling.hamiltonian import Hamiltonian, Term
from qmmlmm.coupling.level_of_theory import Difference, LevelOfTheory
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
    "Difference",
    "EvaluatedPotential",
    "Evaluation",
    "Evaluator",
    "ExternalField",
    "Hamiltonian",
    "LevelOfTheory",
    "Region",
    "RegionPotential",
    "RegionSpecification",
    "StateResults",
    "Term",
    "check_potential",
]
