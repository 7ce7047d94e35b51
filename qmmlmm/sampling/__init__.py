"""Methods that move atoms or bias their motion: multiple time steps, corrections, switching, metadynamics."""

from qmmlmm.sampling.adaptive_correction import AdaptiveCorrection
from qmmlmm.sampling.collective_variables import (
    Angle,
    Combination,
    CoordinationNumber,
    Distance,
    DistanceDifference,
    Torsion,
)
from qmmlmm.sampling.heating import Heating, set_temperature
from qmmlmm.sampling.metadynamics import HillVariable, Metadynamics
from qmmlmm.sampling.multiple_time_step import MultipleTimeStepIntegrator
from qmmlmm.sampling.position_hold import hold_positions
from qmmlmm.sampling.reference_variables import RMSD, PathDistance, PathProgress
from qmmlmm.sampling.switching import switching_work
from qmmlmm.sampling.variable import Variable

__all__ = [
    "RMSD",
    "AdaptiveCorrection",
    "Angle",
    "Combination",
    "CoordinationNumber",
    "Distance",
    "DistanceDifference",
    "Heating",
    "HillVariable",
    "Metadynamics",
    "MultipleTimeStepIntegrator",
    "PathDistance",
    "PathProgress",
    "Torsion",
    "Variable",
    "hold_positions",
    "set_temperature",
    "switching_work",
]
