"""Two atoms on springs of zero length: a leg whose free energies are known, and levels that cost nothing."""

from __future__ import annotations

import numpy as np
import openmm
from openmm import app, unit

from qmmlmm import ForceFieldPotential, OpenMMPotential, Region
from qmmlmm.free_energy import Correction, EndStateCorrection, Leg, SwitchingSettings

TEMPERATURE = 300.0
KT = (unit.MOLAR_GAS_CONSTANT_R * TEMPERATURE * unit.kelvin).value_in_unit(unit.kilojoule_per_mole)
FORCE_FIELD, CHEAP, UPPER = 500.0, 1000.0, 2000.0  # kJ/(mol nm^2)
POCKET = 800.0
"""Stiffness of the pocket that holds the two atoms together in the complex, kJ/(mol nm^2)."""


def spring(stiffness: float, offset: float = 0.0, level: str = "XTB") -> OpenMMPotential:
    """Return a level with another spring, and an energy at its minimum in kJ/mol."""
    system = openmm.System()
    for _ in range(2):
        system.addParticle(4.0)
    force = openmm.CustomBondForce("0.5*k*r^2+offset")
    force.addGlobalParameter("k", stiffness)
    force.addGlobalParameter("offset", offset)
    force.addBond(0, 1)
    system.addForce(force)
    return OpenMMPotential(system, level=level)


def leg(pocket: float = 0.0, *, elements: tuple[str, str] = ("He", "He"), charge: int = 0, bond: bool = True) -> Leg:
    """Return two atoms, bound by the force field, and held together by their surroundings."""
    topology, system = app.Topology(), openmm.System()
    residue = topology.addResidue("PAR", topology.addChain())
    atoms = [topology.addAtom(name, app.Element.getBySymbol(name), residue) for name in elements]
    if bond:
        topology.addBond(*atoms, order=1)
    for _ in range(2):
        system.addParticle(4.0)
    nonbonded, bonds = openmm.NonbondedForce(), openmm.HarmonicBondForce()
    for _ in range(2):
        nonbonded.addParticle(0.0, 0.3, 0.0)
    nonbonded.addException(0, 1, 0.0, 0.3, 0.0)
    bonds.addBond(0, 1, 0.0, FORCE_FIELD)
    system.addForce(nonbonded)
    system.addForce(bonds)
    if pocket:
        held = openmm.CustomCentroidBondForce(2, f"0.5*{pocket}*distance(g1,g2)^2")
        held.addGroup([0])
        held.addGroup([1])
        held.addBond([0, 1])
        system.addForce(held)
    return Leg(topology, system, np.array([[0.0, 0.0, 0.0], [0.05, 0.02, 0.0]]), Region("pair", [0, 1], charge))


def exact(lower: float, upper: float, pocket: float = 0.0, offset: float = 0.0) -> float:
    """Return the free energy of a stiffer spring, kJ/mol."""
    return float(1.5 * KT * np.log((upper + pocket) / (lower + pocket)) + offset)


def quick(**changes: object) -> SwitchingSettings:
    """Return settings for the springs on the Reference platform, changed in part."""
    given: dict[str, object] = {
        "temperature": TEMPERATURE,
        "trajectories": 8,
        "switch_steps": 10,
        "equilibration_steps": 20,
        "steps_between_frames": 20,
        "step_size": 0.005,
        "friction": 10.0,
        "platform": "Reference",
    }
    return SwitchingSettings(**{**given, **changes})


def worked_correction(folder) -> EndStateCorrection:
    """Return a correction that takes some seconds, so that processes can be killed within it."""
    settings = quick(trajectories=8, switch_steps=200, checkpoint_steps=100)
    legs = {"complex": leg(POCKET), "solvent": leg()}
    return EndStateCorrection(
        folder, legs, ForceFieldPotential(), spring(UPPER), embedding="mechanical", settings=settings
    )


def works_of(found: Correction) -> np.ndarray:
    """Return the works of all trajectories, kJ/mol."""
    stages = [stage for one in found.legs.values() for stage in one.stages]
    return np.concatenate([np.concatenate([stage.forward, stage.reverse]) for stage in stages])
