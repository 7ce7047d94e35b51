"""Free energies: estimators, and averages by reweighting."""

from qmmlmm.free_energy.reweighting import Reweighting, bennett_acceptance_ratio, multistate_free_energies, reweight

__all__ = [
    "Reweighting",
    "bennett_acceptance_ratio",
    "multistate_free_energies",
    "reweight",
]
