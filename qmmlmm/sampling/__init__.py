"""Methods that move atoms or bias their motion: multiple time steps, corrections, switching, metadynamics."""

from qmmlmm.sampling.adaptive_correction import AdaptiveCorrection
from qmmlmm.sampling.collective_variables import Distance, DistanceDifference, Torsion
from qmmlmm.sampling.metadynamics import HillVariable, Metadynamics
from qmmlmm.sampling.multiple_time_step import MultipleTimeStepIntegrator
from qmmlmm.sampling.switching import switching_work

__all__ = [
    "AdaptiveCorrection",
    "Distance",
    "DistanceDifference",
    "HillVariable",
    "Metadynamics",
    "MultipleTimeStepIntegrator",
    "Torsion",
    "switching_work",
]
