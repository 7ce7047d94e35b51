"""Dynamics on several electronic surfaces."""

from qmmlmm.nonadiabatic.coefficient_surfaces import CoefficientSurfaces
from qmmlmm.nonadiabatic.crossing_point import CrossingPoint, crossing_point
from qmmlmm.nonadiabatic.ensemble import Ensemble, InitialCondition, TrajectoryRecord
from qmmlmm.nonadiabatic.hop import Hop
from qmmlmm.nonadiabatic.methods import FewestSwitches, LandauZener
from qmmlmm.nonadiabatic.normal_modes import NormalModes, normal_modes
from qmmlmm.nonadiabatic.populations import Populations
from qmmlmm.nonadiabatic.surface_hopping import SurfaceHopping
from qmmlmm.nonadiabatic.surfaces import SurfacePoint, Surfaces
from qmmlmm.nonadiabatic.term_surfaces import TermSurfaces
from qmmlmm.nonadiabatic.velocity_verlet import VelocityVerletIntegrator

__all__ = [
    "CoefficientSurfaces",
    "CrossingPoint",
    "Ensemble",
    "FewestSwitches",
    "Hop",
    "InitialCondition",
    "LandauZener",
    "NormalModes",
    "Populations",
    "SurfaceHopping",
    "SurfacePoint",
    "Surfaces",
    "TermSurfaces",
    "TrajectoryRecord",
    "VelocityVerletIntegrator",
    "crossing_point",
    "normal_modes",
]
