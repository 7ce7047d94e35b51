"""Free energies: estimators, and averages by reweighting."""

from qmmlmm.free_energy.reweighting import Reweighting, bennett_acceptance_ratio, multistate_free_energies, reweight
from qmmlmm.free_energy.umbrella_profile import Barrier, UmbrellaProfile, umbrella_profile
from qmmlmm.free_energy.umbrella_sampling import UmbrellaSampling

__all__ = [
    "Barrier",
    "Reweighting",
    "UmbrellaProfile",
    "UmbrellaSampling",
    "bennett_acceptance_ratio",
    "multistate_free_energies",
    "reweight",
    "umbrella_profile",
]
