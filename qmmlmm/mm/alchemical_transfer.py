"""Alchemical transfer: a molecule at two places of one box, with the terms of a mixed System at both."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import openmm
from openmm import unit

from qmmlmm.errors import SettingError, UnsupportedSystemError, listed
from qmmlmm.mm.mixed_system import MixedSystem
from qmmlmm.mm.supported_forces import BONDED, KEPT
from qmmlmm.mm.virtual_sites import complete_with_virtual_sites
from qmmlmm.setting_checks import check_array, check_atoms, check_instance, check_number, check_quantity
from qmmlmm.units import Scalar, Vectors

FORCE_NAME = "alchemical transfer"
_ALPHA = 0.1
"""Alpha of the softplus function, mol/kJ, which has no effect while both lambdas are equal."""

_ACORE = 0.0625
"""Exponent of the soft core of Pal and Gallicchio."""


@dataclass(frozen=True, eq=False)
class AlchemicalTransfer:
    """A System whose molecule moves between two places, as `alchemical_transfer` returns it.

    Parameters
    ----------
    system : openmm.System
        System for a Simulation with the Topology of the mixed System.
    force : openmm.ATMForce
        Its ATMForce, whose parameters are also those of the Context.
    """

    system: openmm.System
    force: openmm.ATMForce

    def set_lambda(self, context: openmm.Context, value: float) -> None:
        """Set both lambdas: 0 is the molecule at its place, 1 the displaced molecule.

        Parameters
        ----------
        context : openmm.Context
            Context of `system`.
        value : float

        Raises
        ------
        SettingError
            If the value is not between 0 and 1.
        """
        self._check_context(context)
        value = check_number("value", value, at_least=0.0, at_most=1.0)
        for name in (self.force.Lambda1(), self.force.Lambda2()):
            context.setParameter(name, value)

    def energies(self, context: openmm.Context) -> tuple[unit.Quantity, unit.Quantity]:
        """Return the potential energies with the molecule at its place and displaced, without a soft core.

        Parameters
        ----------
        context : openmm.Context
            Context of `system`.

        Returns
        -------
        Quantity, kJ/mol

        Notes
        -----
        They are computed as energies at lambda 0 and 1. `ATMForce.getPerturbationEnergy` waits for ever on CUDA if a
        term runs in Python, in OpenMM before the fix of its issue 5385.
        """
        self._check_context(context)
        force = self.force
        parameters = dict(context.getParameters())
        ends = []
        try:
            context.setParameter(force.Acore(), 0.0)
            context.setParameter(force.Direction(), 1.0)
            context.setParameter(force.W0(), 0.0)
            for value in (0.0, 1.0):
                self.set_lambda(context, value)
                ends.append(context.getState(energy=True).getPotentialEnergy())
        finally:
            for name, value in parameters.items():
                context.setParameter(name, value)
        return ends[0], ends[1]

    def _check_context(self, context: object) -> None:
        check_instance("context", context, openmm.Context, "an openmm.Context, such as simulation.context")
        if self.force.Lambda1() not in dict(context.getParameters()):  # type: ignore[attr-defined]
            raise SettingError("context runs another System: create it with the system of this AlchemicalTransfer")


def alchemical_transfer(
    mixed: MixedSystem, ligand: Sequence[int], displacement: Vectors, *, soft_core: tuple[Scalar, Scalar] | None = None
) -> AlchemicalTransfer:
    """Return a System in which a molecule moves by a vector, from a binding site to the solvent for example.

    Parameters
    ----------
    mixed : MixedSystem
        System with terms, on the molecule or elsewhere. It is not changed. ML terms run through PythonForce or
        TorchForce.
    ligand : sequence of int
        All atoms of the molecule, or of several molecules.
    displacement : (3,) Quantity or float array, nm
        Vector from its place to the other one.
    soft_core : (Quantity, Quantity) or (float, float), kJ/mol, optional
        Largest value of u1 - u0, and value below which it is unchanged: `Umax` and `Ubcore` of `openmm.ATMForce`. They
        are needed where the displaced molecule would overlap with solvent. The energy at lambda 1 is then not that of
        the other place; in the method one simulates up to lambda 1/2 from both sides.

    Raises
    ------
    SettingError
        If an argument is out of range.
    UnsupportedSystemError
        If the atoms are a part of a molecule.

    Notes
    -----
    Source: Wu, Azimi, Khuttan, Deng and Gallicchio, J. Chem. Theory Comput. 17, 3309 (2021). Without a soft core the
    energy is u0 + lambda (u1 - u0). Bonded terms, restraints and barostats are outside the ATMForce: a displacement of
    whole molecules does not change the former, and the others act on the positions as they are. All other Forces, terms
    of the Hamiltonian among them, are computed at both places at every step.

    A term with electrostatic embedding raises an error where a charge of the surroundings comes closer than 0.3
    angstrom to an atom of its region, which a soft core cannot prevent. Displace a molecule with such a term to a place
    without solvent, or treat it with mechanical embedding.
    """
    check_instance("mixed", mixed, MixedSystem)
    system = mixed.system
    atoms = set(
        complete_with_virtual_sites(system, check_atoms("ligand", ligand, system.getNumParticles(), error=SettingError))
    )
    vector = check_array("displacement", displacement, (3,), unit.nanometer)
    if not np.any(vector):
        raise SettingError("displacement is a vector that is not zero, got zero")
    highest, base = _soft_core(soft_core)
    _check_whole(mixed, atoms)
    mixed.check_unchanged()
    moved = copy.deepcopy(system)
    names = [force.getName() for force in system.getForces()]
    force = openmm.ATMForce(0.0, 0.0, _ALPHA, 0.0, 0.0, highest, base, 0.0 if soft_core is None else _ACORE, 1.0)
    force.setName(FORCE_NAME)
    for particle in range(moved.getNumParticles()):
        force.addParticle(openmm.Vec3(*vector) if particle in atoms else openmm.Vec3(0, 0, 0))
    for index in reversed(range(moved.getNumForces())):
        inner = moved.getForce(index)
        if type(inner) in KEPT or type(inner) in BONDED:
            continue
        inner = copy.deepcopy(inner)
        # A copy of a PythonForce has lost its name.
        inner.setName(names[index])
        inner.setForceGroup(0)
        if isinstance(inner, openmm.NonbondedForce):
            inner.setReciprocalSpaceForceGroup(-1)
        force.addForce(inner)
        moved.removeForce(index)
    moved.addForce(force)
    return AlchemicalTransfer(moved, force)


def _soft_core(given: tuple[Scalar, Scalar] | None) -> tuple[float, float]:
    if given is None:
        return 0.0, 0.0
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise SettingError(f"soft_core is a pair of energies, the largest one and the base, got {given!r}")
    highest, base = (
        check_quantity(f"soft_core: {name}", value, unit.kilojoule_per_mole)
        for name, value in zip(("largest energy", "base"), given, strict=True)
    )
    if not base < highest:
        raise SettingError(f"soft_core: the base is below the largest energy, got {base:g} and {highest:g} kJ/mol")
    return highest, base


def _check_whole(mixed: MixedSystem, atoms: set[int]) -> None:
    system = mixed.system
    pairs = [(bond.atom1.index, bond.atom2.index) for bond in mixed.topology.bonds()]
    pairs += [tuple(system.getConstraintParameters(k)[:2]) for k in range(system.getNumConstraints())]
    for one in system.getForces():
        if isinstance(one, openmm.HarmonicBondForce):
            pairs += [tuple(one.getBondParameters(k)[:2]) for k in range(one.getNumBonds())]
    cut = sorted({pair for pair in pairs if (pair[0] in atoms) != (pair[1] in atoms)})
    if cut:
        raise UnsupportedSystemError(
            f"ligand is a part of a molecule, with bonds {listed(cut)} to atoms outside; give all atoms of the molecule"
        )
