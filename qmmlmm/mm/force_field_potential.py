"""The force field as a potential of a region, for the way from it to a model or to QM by a parameter."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import openmm

from qmmlmm.coupling.coefficient import Coefficient
from qmmlmm.coupling.potential import Capabilities, RegionPotential
from qmmlmm.errors import UnsupportedSystemError, listed
from qmmlmm.mm.removal import RegionToRemove, without_terms
from qmmlmm.mm.supported_forces import BONDED


@dataclass(frozen=True)
class ForceFieldPotential(RegionPotential):
    """The force field's energy of a region: its inside, and with electrostatic embedding its charges.

    It is for one outermost region and terms whose coefficients add up to one for all values of a parameter. With a
    coefficient of one the result is the plain force field.

    Examples
    --------
    ::

        Hamiltonian([
            Term(ForceFieldPotential(), ligand, embedding="electrostatic", coefficient="1-lambda_ml"),
            Term(ml, ligand, embedding="electrostatic", coefficient="lambda_ml"),
        ], parameters={"lambda_ml": 0.0})
    """

    @property
    def level(self) -> str:
        """``"FF"``."""
        return "FF"

    @property
    def capabilities(self) -> Capabilities:
        """Both embeddings; the force field keeps its point charges if the other terms feel smeared ones."""
        return Capabilities(frozenset({"mechanical", "electrostatic"}), smeared_charges=True)


def force_field_term(
    system: openmm.System,
    removed: openmm.System,
    region: RegionToRemove,
    coefficient: Coefficient,
    parameters: dict[str, float],
) -> openmm.CustomCVForce:
    """Return the energy that a force field lost with a region, as a Force with a coefficient.

    Parameters
    ----------
    system : openmm.System
        System of the force field.
    removed : openmm.System
        System from `qmmlmm.mm.removal.remove_regions`, without this region only.
    region : RegionToRemove
    coefficient : Coefficient
    parameters : dict of str to float
        Initial values of its parameters.

    Returns
    -------
    openmm.CustomCVForce
        Nonbonded forces are computed twice, with and without the region.

    Raises
    ------
    UnsupportedSystemError
        If a constraint inside the region was removed and there is no bond for it.
    """
    _check_constraints(system, removed, region)
    inside = set(region.particles)
    force = openmm.CustomCVForce("0")
    summands = []
    for index in range(system.getNumForces()):
        before, after = system.getForce(index), removed.getForce(index)
        if _xml(before) == _xml(after):
            continue
        variable = f"variable{index}"
        if type(before) in BONDED:
            taken, _ = without_terms(before, lambda particles: not inside.issuperset(particles))
            force.addCollectiveVariable(variable, taken)
            summands.append(variable)
        else:
            for sign, name, nonbonded in (("", variable, before), ("-", f"without{index}", after)):
                nonbonded = copy.deepcopy(nonbonded)
                if isinstance(nonbonded, openmm.NonbondedForce):
                    nonbonded.setReciprocalSpaceForceGroup(-1)
                    if nonbonded.usesPeriodicBoundaryConditions():
                        # As in the force field without the region, which uses the nearest images.
                        nonbonded.setExceptionsUsePeriodicBoundaryConditions(True)
                if sign:
                    # The two differ in their exclusions, which OpenMM's CPU and GPU platforms refuse in one Context.
                    separate = openmm.CustomCVForce(name)
                    separate.addCollectiveVariable(name, nonbonded)
                    nonbonded = separate
                force.addCollectiveVariable(name, nonbonded)
                summands.append(f"{sign}{name}")
    weight = "+".join([repr(coefficient.constant), *(f"({factor!r})*{name}" for name, factor in coefficient.slopes)])
    force.setEnergyFunction(f"({weight})*({'+'.join(summands) or '0'})")
    for name in coefficient.parameters:
        force.addGlobalParameter(name, parameters[name])
    return force


def force_field_energy(force: openmm.CustomCVForce, context: openmm.Context) -> float:
    """Return the energy of a Force from `force_field_term` without its coefficient, kJ/mol."""
    values = force.getCollectiveVariableValues(context)
    names = (force.getCollectiveVariableName(k) for k in range(force.getNumCollectiveVariables()))
    return float(
        sum(-value if name.startswith("without") else value for name, value in zip(names, values, strict=True))
    )


def _check_constraints(system: openmm.System, removed: openmm.System, region: RegionToRemove) -> None:
    kept = {frozenset(removed.getConstraintParameters(k)[:2]) for k in range(removed.getNumConstraints())}
    constrained = {frozenset(system.getConstraintParameters(k)[:2]) for k in range(system.getNumConstraints())}
    missing = constrained - kept
    for force in system.getForces():
        if isinstance(force, openmm.HarmonicBondForce | openmm.CustomBondForce):
            missing -= {frozenset(force.getBondParameters(k)[:2]) for k in range(force.getNumBonds())}
        elif isinstance(force, openmm.HarmonicAngleForce):
            # The third constraint of a rigid water replaces its angle.
            missing -= {frozenset(force.getAngleParameters(k)[:3:2]) for k in range(force.getNumAngles())}
    pairs = sorted(tuple(sorted(pair)) for pair in missing)
    if pairs:
        raise UnsupportedSystemError(
            f"region {region.name!r}: the force field holds the pairs {listed(pairs)} by constraints, which the other "
            "terms do not have, and has no bonds for them; make the System with flexibleConstraints=True, "
            "or with constraints=None and rigidWater=False"
        )


def _xml(force: openmm.Force) -> str:
    return str(openmm.XmlSerializer.serialize(force))
