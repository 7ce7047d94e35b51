"""Free energies: estimators, averages by reweighting, and corrections from one level to another."""

from qmmlmm.free_energy.correction_result import Correction, LegResult, StageResult
from qmmlmm.free_energy.end_state_correction import EndStateCorrection
from qmmlmm.free_energy.equilibrium_ladder import EquilibriumLadder, LadderLeg, LadderResult
from qmmlmm.free_energy.reweighting import Reweighting, bennett_acceptance_ratio, multistate_free_energies, reweight
from qmmlmm.free_energy.switching_settings import SwitchingSettings
from qmmlmm.free_energy.umbrella_profile import Barrier, UmbrellaProfile, umbrella_profile
from qmmlmm.free_energy.umbrella_sampling import UmbrellaSampling
from qmmlmm.free_energy.work_estimate import WorkEstimate, work_estimate
from qmmlmm.sampling.leg import Leg

__all__ = [
    "Barrier",
    "Correction",
    "EndStateCorrection",
    "EquilibriumLadder",
    "LadderLeg",
    "LadderResult",
    "Leg",
    "LegResult",
    "Reweighting",
    "StageResult",
    "SwitchingSettings",
    "UmbrellaProfile",
    "UmbrellaSampling",
    "WorkEstimate",
    "bennett_acceptance_ratio",
    "multistate_free_energies",
    "reweight",
    "umbrella_profile",
    "work_estimate",
]
