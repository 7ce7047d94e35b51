"""Methods that move atoms or bias their motion: multiple time steps, corrections, switching, metadynamics."""

from qmmlmm.sampling.adaptive_correction import AdaptiveCorrection
from qmmlmm.sampling.collective_variables import Distance, DistanceDifference, Torsion
from qmmlmm.sampling.heating import Heating, set_temperature
from qmmlmm.sampling.metadynamics import HillVariable, Metadynamics
from qmmlmm.sampling.multiple_time_step import MultipleTimeStepIntegrator
from qmmlmm.sampling.position_hold import hold_positions
from qmmlmm.sampling.switching import switching_work

__all__ = [
    "AdaptiveCorrection",
    "Distance",
    "DistanceDifference",
    "Heating",
    "HillVariable",
    "Metadynamics",
    "MultipleTimeStepIntegrator",
    "Torsion",
    "hold_positions",
    "set_temperature",
    "switching_work",
]
