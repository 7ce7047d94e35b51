"""Force classes from which regions can be removed, and errors for all others."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence

import openmm

from qmmlmm.errors import UnsupportedSystemError, listed
from qmmlmm.units import IntArray

# The element that holds the terms in OpenMM's XML, and the attributes that hold their particles.
BONDED: dict[type, tuple[str, tuple[str, ...] | None]] = {
    openmm.HarmonicBondForce: ("Bonds", ("p1", "p2")),
    openmm.HarmonicAngleForce: ("Angles", ("p1", "p2", "p3")),
    openmm.PeriodicTorsionForce: ("Torsions", ("p1", "p2", "p3", "p4")),
    openmm.RBTorsionForce: ("Torsions", ("p1", "p2", "p3", "p4")),
    openmm.CMAPTorsionForce: ("Torsions", ("a1", "a2", "a3", "a4", "b1", "b2", "b3", "b4")),
    openmm.CustomBondForce: ("Bonds", ("p1", "p2")),
    openmm.CustomAngleForce: ("Angles", ("p1", "p2", "p3")),
    openmm.CustomTorsionForce: ("Torsions", ("p1", "p2", "p3", "p4")),
    openmm.CustomCompoundBondForce: ("Bonds", None),  # as many as the force says
}

# Thermostats, barostats, and biases that act on all atoms, independent of their level.
KEPT: frozenset[type] = frozenset(
    {
        openmm.AndersenThermostat,
        openmm.CMMotionRemover,
        openmm.CustomCentroidBondForce,
        openmm.CustomExternalForce,
        openmm.CustomVolumeForce,
        openmm.MonteCarloAnisotropicBarostat,
        openmm.MonteCarloBarostat,
        openmm.MonteCarloFlexibleBarostat,
        openmm.MonteCarloMembraneBarostat,
        openmm.OrientationRestraintForce,
        openmm.RGForce,
        openmm.RMSDForce,
        openmm.RPMDMonteCarloBarostat,
    }
)

_NONBONDED: frozenset[type] = frozenset({openmm.NonbondedForce, openmm.CustomNonbondedForce})
_CUSTOM: frozenset[type] = frozenset(
    {
        openmm.CustomBondForce,
        openmm.CustomCompoundBondForce,
        openmm.CustomExternalForce,
        openmm.CustomNonbondedForce,
    }
)

_IMPLICIT_SOLVENT: frozenset[type] = frozenset({openmm.GBSAOBCForce, openmm.CustomGBForce, openmm.LCPOForce})

_CHARGE_LIKE = re.compile(r"q(\d*|[ij]+|q\w*|_\w+|prod\w*|\dq\d)|.*charge.*|chg\w*", re.IGNORECASE)
_COULOMB_CONSTANT = re.compile(r"138\.9|ONE_4PI_EPS0", re.IGNORECASE)


def _described(index: int, force: openmm.Force) -> str:
    kind = type(force).__name__
    name = force.getName()
    return f"force {index}, a {kind}" + ("" if name == kind else f" named {name!r},")


def check_force_class(index: int, force: openmm.Force, electrostatic: bool) -> None:
    """Raise if regions cannot be removed from a System with this Force.

    Parameters
    ----------
    index : int
        Index of the Force in its System, for the message.
    force : openmm.Force
    electrostatic : bool
        Whether a region is embedded electrostatically.

    Raises
    ------
    UnsupportedSystemError
        If the class is not known, or is implicit solvent that cannot be combined with the embedding.
    """
    kind = type(force)
    if kind in _IMPLICIT_SOLVENT:
        if electrostatic:
            raise UnsupportedSystemError(
                f"{_described(index, force)} is an implicit solvent, which polarises with the charges of the "
                "force field and not with those of the region; use explicit solvent, or mechanical embedding"
            )
        if kind is openmm.CustomGBForce and force.getNumExclusions() > 0:
            raise UnsupportedSystemError(
                f"{_described(index, force)} has exclusions, which would differ from those of the "
                "NonbondedForce; use one of the Generalized Born models of openmm.app, which have none"
            )
    elif kind not in KEPT and kind not in BONDED and kind not in _NONBONDED:
        raise UnsupportedSystemError(
            f"{_described(index, force)} is of a class from which regions cannot be removed; if it is a "
            "bias, add it to the System that create_mixed_system returns; if it "
            "is part of the force field, choose a force field without it"
        )


def check_hidden_charges(index: int, force: openmm.Force, charge_free: frozenset[int], region_of: IntArray) -> None:
    """Raise if a custom force has charges in a region with electrostatic embedding.

    Parameters
    ----------
    index : int
        Index of the Force in its System, for the message.
    force : openmm.Force
    charge_free : frozenset of int
        Particles of all regions with electrostatic embedding.
    region_of : (n_particles,) int array
        Index of each particle's region, -1 for none.

    Raises
    ------
    UnsupportedSystemError
        If a parameter with the name of a charge is not zero for such a particle, or the energy function has the Coulomb
        constant and no such parameter.
    """
    if not charge_free or type(force) not in _CUSTOM:
        return
    names, rows = _custom_parameters(force, charge_free, region_of)
    suspects = [k for k, name in enumerate(names) if _CHARGE_LIKE.fullmatch(name)]
    for particles, values in rows:
        charged = [names[k] for k in suspects if values[k] != 0.0]
        if not suspects and _COULOMB_CONSTANT.search(force.getEnergyFunction()):
            charged = ["the energy function has the Coulomb constant"]
        if charged:
            raise UnsupportedSystemError(
                f"{_described(index, force)} seems to hold charges for particles {listed(particles)} of a "
                f"region that is embedded electrostatically: {listed(charged)}. The force field's charges in "
                "the region must be removed, which is possible for a NonbondedForce only; use a System "
                "whose charges are there, or mechanical embedding; add biases to the System that "
                "create_mixed_system returns"
            )


def _custom_parameters(
    force: openmm.Force, charge_free: frozenset[int], region_of: IntArray
) -> tuple[list[str], Iterator[tuple[tuple[int, ...], Sequence[float]]]]:
    """Return names and values of the parameters of charge-free particles that are kept."""
    if isinstance(force, openmm.CustomNonbondedForce):
        names = [force.getPerParticleParameterName(k) for k in range(force.getNumPerParticleParameters())]
        members = charge_free
        if force.getNumInteractionGroups():
            groups = [force.getInteractionGroupParameters(k) for k in range(force.getNumInteractionGroups())]
            members = charge_free & frozenset(itertools.chain.from_iterable(itertools.chain(*groups)))
        return names, (((i,), force.getParticleParameters(i)) for i in sorted(members))
    if isinstance(force, openmm.CustomExternalForce):
        names = [force.getPerParticleParameterName(k) for k in range(force.getNumPerParticleParameters())]
        entries = (force.getParticleParameters(k) for k in range(force.getNumParticles()))
        return names, (((i,), values) for i, values in entries if i in charge_free)
    names = [force.getPerBondParameterName(k) for k in range(force.getNumPerBondParameters())]
    bonds = (force.getBondParameters(k) for k in range(force.getNumBonds()))
    terms = ((tuple(bond[0]) if len(bond) == 2 else (bond[0], bond[1]), bond[-1]) for bond in bonds)
    return names, (
        (particles, values)
        for particles, values in terms
        if not charge_free.isdisjoint(particles) and not in_one_region(particles, region_of)
    )


def in_one_region(particles: Sequence[int], region_of: IntArray) -> bool:
    """Return whether all particles are in the same region.

    Parameters
    ----------
    particles : sequence of int
    region_of : (n_particles,) int array
        Index of each particle's region, -1 for none.
    """
    first = region_of[particles[0]]
    return bool(first >= 0 and all(region_of[particle] == first for particle in particles))
