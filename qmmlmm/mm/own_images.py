"""Removal of the interaction of a mechanically embedded region with its own periodic images from the force field.

With mechanical embedding the region keeps its charges in the force field, whose Ewald sum includes the region's
interaction with its own images. A potential that depends only on the region needs this interaction. A potential that
computes the images itself would count it twice.
"""

from __future__ import annotations

import itertools

import openmm

from qmmlmm.errors import UnsupportedSystemError
from qmmlmm.mm.electrostatics import electrostatics_settings, force_field_charges, nonbonded_force
from qmmlmm.mm.removal import RegionToRemove


def without_own_images(system: openmm.System, region: RegionToRemove) -> openmm.Force:
    """Return a Force that subtracts the Coulomb interaction of a region with its own images from the force field.

    Parameters
    ----------
    system : openmm.System
        Periodic System with the force field's charges.
    region : RegionToRemove
        Region with mechanical embedding.

    Returns
    -------
    openmm.CustomCVForce
        Minus the Ewald sum of the region's charges, without pairs inside the nearest image and with the neutralising
        background.

    Raises
    ------
    UnsupportedSystemError
        If there is not exactly one NonbondedForce, or it has no Ewald sum.
    """
    settings = electrostatics_settings(system)
    if not settings.periodic:
        raise UnsupportedSystemError(
            f"region {region.name!r} has a potential with long_range=True, but the NonbondedForce uses "
            f"{settings.method}: there are no images; use long_range=False"
        )
    charges = force_field_charges(system)
    alone = openmm.NonbondedForce()
    alone.setName("images")
    ewald = openmm.NonbondedForce.Ewald
    alone.setNonbondedMethod(ewald if settings.method == "Ewald" else openmm.NonbondedForce.PME)
    alone.setCutoffDistance(settings.cutoff)
    alone.setEwaldErrorTolerance(nonbonded_force(system).getEwaldErrorTolerance())
    if settings.method != "Ewald":
        assert settings.grid is not None
        alone.setPMEParameters(settings.alpha, *settings.grid)
    inside = set(region.particles)
    for particle, charge in enumerate(charges):
        alone.addParticle(float(charge) if particle in inside else 0.0, 1.0, 0.0)
    for i, j in itertools.combinations(region.particles, 2):
        alone.addException(i, j, 0.0, 1.0, 0.0)
    alone.setExceptionsUsePeriodicBoundaryConditions(True)
    force = openmm.CustomCVForce("-images")
    force.addCollectiveVariable("images", alone)
    force.setName(f"qmmlmm without own images: {region.name}")
    return force
