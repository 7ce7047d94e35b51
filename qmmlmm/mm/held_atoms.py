"""Atoms that are held at their positions in optimisations and dynamics."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import openmm
from openmm import app, unit

from qmmlmm.errors import SelectionError, SettingError, UnsupportedSystemError, listed, shown
from qmmlmm.mm.mixed_system import MixedSystem
from qmmlmm.mm.selection import select
from qmmlmm.mm.term_layouts import particle_labels
from qmmlmm.setting_checks import check_array, check_atoms, check_instance
from qmmlmm.units import Vectors


@dataclass(frozen=True)
class HeldAtoms:
    """What `hold` has done to a System.

    Parameters
    ----------
    atoms : tuple of int
        Sorted indices of all held atoms, without virtual sites.
    moving : tuple of int
        Sorted indices of the atoms that still move.
    removed_constraints : int
        Number of constraints between two held atoms, which were removed.
    """

    atoms: tuple[int, ...]
    moving: tuple[int, ...]
    removed_constraints: int


def hold(
    system: openmm.System | MixedSystem,
    topology: app.Topology,
    atoms: str | Iterable[int],
    *,
    positions: Vectors | None = None,
    box_vectors: Vectors | None = None,
) -> HeldAtoms:
    """Hold atoms at their positions, in every optimisation and simulation with this System.

    The atoms get the mass zero, so that no integrator and no minimiser of OpenMM moves them. The System is changed:
    call this before a Context or Simulation is made of it, and after `create_mixed_system`.

    Parameters
    ----------
    system : openmm.System or MixedSystem
    topology : openmm.app.Topology
    atoms : str or iterable of int
        A selection such as ``"not within 10 angstrom of resname LIG"``, see `select`: of it all residues are held that
        it has wholly, so that no molecule is held in part. Indices are taken as they are.
    positions : (n_atoms, 3) Quantity or float array, nm, optional
        Positions, needed for ``within``.
    box_vectors : (3, 3) Quantity or float array, nm, optional
        Box vectors; those of the Topology if not given.

    Returns
    -------
    HeldAtoms

    Raises
    ------
    SelectionError
        If no residue is selected wholly, no atom is left to move, or a constraint joins a held and a moving atom.
    UnsupportedSystemError
        If the System has a barostat, which moves all atoms.

    Notes
    -----
    Constraints between two held atoms are removed. OpenMM refuses others on an atom without mass in a simulation, and
    its minimiser then returns the start without a word. Virtual sites follow their atoms. A CMMotionRemover is removed,
    because the momentum of what moves among held atoms is not conserved.
    """
    if not isinstance(system, openmm.System | MixedSystem):
        raise SettingError(f"system is an openmm.System or a MixedSystem, got {shown(system)}")
    check_instance("topology", topology, app.Topology, "an openmm.app.Topology")
    target = system.system if isinstance(system, MixedSystem) else system
    n_atoms = topology.getNumAtoms()
    if n_atoms != target.getNumParticles():
        raise UnsupportedSystemError(
            f"the Topology has {n_atoms} atoms and the System {target.getNumParticles()} particles; pass the pair that "
            "belongs together"
        )
    if positions is not None:
        check_array("positions", positions, (n_atoms, 3), unit.nanometer, SelectionError)
    if box_vectors is not None:
        check_array("box_vectors", box_vectors, (3, 3), unit.nanometer, SelectionError)
    barostats = [force.getName() for force in target.getForces() if "Barostat" in type(force).__name__]
    if barostats:
        raise UnsupportedSystemError(
            f"the System has {listed(barostats)}, which moves all molecules when it changes the box, held or not; hold "
            "atoms at constant volume"
        )
    if isinstance(atoms, str):
        held = wholly_selected(topology, atoms, select(topology, atoms, positions=positions, box_vectors=box_vectors))
    else:
        held = set(check_atoms("atoms", atoms, n_atoms))
    sites = {index for index in range(n_atoms) if target.isVirtualSite(index)}
    held -= sites
    moving = [index for index in range(n_atoms) if index not in held | sites and target.getParticleMass(index)._value]
    if not held or not moving:
        what = "no atom is left that moves" if held else "only virtual sites are selected, which follow their atoms"
        raise SelectionError(f"{what}: {n_atoms} atoms, {len(held)} of them held; change atoms")
    constraints = _constraints(target, topology, held)
    for index in reversed(constraints):
        target.removeConstraint(index)
    for index in held:
        target.setParticleMass(index, 0.0)
    for index in reversed(range(target.getNumForces())):
        if isinstance(target.getForce(index), openmm.CMMotionRemover):
            target.removeForce(index)
    return HeldAtoms(tuple(sorted(held)), tuple(moving), len(constraints))


def wholly_selected(topology: app.Topology, text: str, selected: Iterable[int]) -> set[int]:
    """Return the atoms of the residues of which all atoms are selected."""
    chosen = set(selected)
    residues = [{atom.index for atom in residue.atoms()} for residue in topology.residues()]
    held = set().union(*(residue for residue in residues if residue <= chosen))
    if not held:
        raise SelectionError(
            f"atoms: the selection {text!r} has {len(chosen)} atoms and no whole residue, and parts of residues "
            "are not held by a selection; select whole residues ('same residue as ...'), or give "
            "atoms=select(topology, ...)"
        )
    return held


def _constraints(system: openmm.System, topology: app.Topology, held: set[int]) -> list[int]:
    """Return the indices of the constraints between two held atoms; those with one end held are refused."""
    inside, across = [], []
    for index in range(system.getNumConstraints()):
        first, second, _ = system.getConstraintParameters(index)
        ends = (first in held) + (second in held)
        if ends == 2:
            inside.append(index)
        elif ends == 1:
            across.append((first, second) if first in held else (second, first))
    if across:
        labels = particle_labels(topology)
        pairs = [f"{labels[one]} (held) and {labels[other]}" for one, other in across]
        raise SelectionError(
            f"atoms: constraints join held and moving atoms: {listed(pairs)}; hold whole residues, or build the System "
            "without these constraints (constraints=None, rigidWater=False)"
        )
    return inside
