"""Dynamics on several electronic surfaces."""

from qmmlmm.dynamics.methods import FewestSwitches, LandauZener
from qmmlmm.dynamics.surface_hopping import Hop, SurfaceHopping
from qmmlmm.dynamics.surfaces import SurfacePoint, Surfaces
from qmmlmm.dynamics.term_surfaces import TermSurfaces
from qmmlmm.dynamics.velocity_verlet import VelocityVerletIntegrator

__all__ = [
    "FewestSwitches",
    "Hop",
    "LandauZener",
    "SurfaceHopping",
    "SurfacePoint",
    "Surfaces",
    "TermSurfaces",
    "VelocityVerletIntegrator",
]
