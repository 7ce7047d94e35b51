"""Dynamics on several electronic surfaces."""

from qmmlmm.dynamics.coefficient_surfaces import CoefficientSurfaces
from qmmlmm.dynamics.crossing_point import CrossingPoint, crossing_point
from qmmlmm.dynamics.ensemble import Course, Ensemble, InitialCondition
from qmmlmm.dynamics.methods import FewestSwitches, LandauZener
from qmmlmm.dynamics.normal_modes import NormalModes, normal_modes
from qmmlmm.dynamics.populations import Populations
from qmmlmm.dynamics.surface_hopping import Hop, SurfaceHopping
from qmmlmm.dynamics.surfaces import SurfacePoint, Surfaces
from qmmlmm.dynamics.term_surfaces import TermSurfaces
from qmmlmm.dynamics.velocity_verlet import VelocityVerletIntegrator

__all__ = [
    "CoefficientSurfaces",
    "Course",
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
    "VelocityVerletIntegrator",
    "crossing_point",
    "normal_modes",
]
