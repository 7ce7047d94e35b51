"""Charges and Ewald parameters of a System's force field."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import openmm
from openmm import app, unit
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from qmmlmm.errors import RegionError, UnsupportedSystemError
from qmmlmm.mm.virtual_sites import complete_with_virtual_sites
from qmmlmm.setting_checks import check_atoms, check_instance
from qmmlmm.units import FloatArray, in_unit

ROUNDING = 0.25
"""Largest difference, e, between the charge of a part of a region and an integer.

Side chains beyond CB differ from integers by up to 0.202 e in ff14SB and ff19SB.
"""

_MINIMUM_GRID = 6
_METHODS = {
    openmm.NonbondedForce.NoCutoff: "NoCutoff",
    openmm.NonbondedForce.CutoffNonPeriodic: "CutoffNonPeriodic",
    openmm.NonbondedForce.CutoffPeriodic: "CutoffPeriodic",
    openmm.NonbondedForce.Ewald: "Ewald",
    openmm.NonbondedForce.PME: "PME",
    openmm.NonbondedForce.LJPME: "LJPME",
}


@dataclass(frozen=True)
class ElectrostaticsSettings:
    """Method and parameters of a System's Coulomb interactions.

    Parameters
    ----------
    method : str
        ``"NoCutoff"``, ``"Ewald"``, ``"PME"`` or ``"LJPME"``.
    cutoff : float or None, nm
        Cutoff of the short-range part; None without a box.
    alpha : float or None, 1/nm
        Ewald splitting parameter; None without a box.
    grid : (int, int, int) or None
        Numbers of points of the PME mesh along the three box vectors; None without a box.
    """

    method: str
    cutoff: float | None = None
    alpha: float | None = None
    grid: tuple[int, int, int] | None = None

    @property
    def periodic(self) -> bool:
        """Whether there is a box."""
        return self.alpha is not None


def nonbonded_force(system: openmm.System) -> openmm.NonbondedForce:
    """Return the only NonbondedForce of a System.

    Raises
    ------
    UnsupportedSystemError
        If there is none or more than one.
    """
    found = [force for force in system.getForces() if isinstance(force, openmm.NonbondedForce)]
    if len(found) != 1:
        raise UnsupportedSystemError(
            f"the charges of the force field are read from the only NonbondedForce, and this System has "
            f"{len(found)}; use a System with exactly one, or mechanical embedding"
        )
    return found[0]


def force_field_charges(system: openmm.System) -> FloatArray:
    """Return the force-field charges of all particles.

    Parameters
    ----------
    system : openmm.System

    Returns
    -------
    (n_particles,) float array, e

    Raises
    ------
    UnsupportedSystemError
        If there is not exactly one NonbondedForce.
    SettingError
        If it is no System.
    """
    check_instance("system", system, openmm.System, "an openmm.System")
    force = nonbonded_force(system)
    # OpenMM returns elementary charges; to convert each one takes longer than to read it.
    return np.array(
        [force.getParticleParameters(i)[0]._value for i in range(force.getNumParticles())], dtype=np.float64
    )


def electrostatics_settings(system: openmm.System) -> ElectrostaticsSettings:
    """Return method and parameters of a System's Coulomb interactions, with the Ewald parameters of OpenMM.

    Parameters
    ----------
    system : openmm.System
        System whose default box determines the mesh, as in OpenMM.

    Raises
    ------
    UnsupportedSystemError
        If there is not exactly one NonbondedForce, or it uses a reaction field, or only a part of the
        Ewald sum, or its explicit PME parameters are incomplete.

    Notes
    -----
    Source: OpenMM user guide, section 19.6.4 (particle mesh Ewald), and ``NonbondedForceImpl::
    calcPMEParameters``. Parameters from ``setPMEParameters`` take precedence. Platforms may round the
    mesh up; the Reference platform uses these numbers. Plain Ewald gets the mesh that PME would have.
    """
    force = nonbonded_force(system)
    method = _METHODS[force.getNonbondedMethod()]
    if method == "NoCutoff":
        return ElectrostaticsSettings(method)
    if method.startswith("Cutoff"):
        raise UnsupportedSystemError(
            f"the NonbondedForce uses {method}, a reaction field, in which the potential of the surroundings "
            "is not defined at a region; use PME with a box or NoCutoff without one, or mechanical embedding"
        )
    if not force.getIncludeDirectSpace():
        raise UnsupportedSystemError(
            "the NonbondedForce leaves out its direct space part, so that its charges do not act by "
            "Coulomb's law; call setIncludeDirectSpace(True), or use mechanical embedding"
        )
    cutoff = float(in_unit(force.getCutoffDistance(), unit.nanometer))
    given_alpha, *given_grid = force.getPMEParameters()
    alpha = float(in_unit(given_alpha, unit.nanometer**-1))
    if alpha != 0.0:
        if min(given_grid) < 1:
            raise UnsupportedSystemError(
                f"setPMEParameters was given alpha = {alpha:g}/nm with the grid {tuple(given_grid)}; give "
                "all three grid sizes as well, or alpha = 0 to have them chosen from the error tolerance"
            )
        nx, ny, nz = (int(n) for n in given_grid)
        return ElectrostaticsSettings(method, cutoff, alpha, (nx, ny, nz))
    tolerance = float(force.getEwaldErrorTolerance())
    alpha = math.sqrt(-math.log(2.0 * tolerance)) / cutoff
    box = system.getDefaultPeriodicBoxVectors()
    edges = [float(in_unit(vector, unit.nanometer)[axis]) for axis, vector in enumerate(box)]
    nx, ny, nz = (max(_MINIMUM_GRID, math.ceil(2.0 * alpha * edge / (3.0 * tolerance**0.2))) for edge in edges)
    return ElectrostaticsSettings(method, cutoff, alpha, (nx, ny, nz))


def check_electrostatics(system: openmm.System) -> None:
    """Raise UnsupportedSystemError if a number of a NonbondedForce makes OpenMM fail or compute nonsense.

    Notes
    -----
    OpenMM checks only some of them, and late: a PME mesh with fewer points than the order of its splines ends the
    process.
    """
    for force in system.getForces():
        if not isinstance(force, openmm.NonbondedForce) or force.getNonbondedMethod() == openmm.NonbondedForce.NoCutoff:
            continue
        cutoff = float(in_unit(force.getCutoffDistance(), unit.nanometer))
        if not 0.0 < cutoff < math.inf:
            raise UnsupportedSystemError(
                f"the NonbondedForce has the cutoff {cutoff:g} nm; call setCutoffDistance with a length above zero, "
                "such as 1.0 * unit.nanometer"
            )
        if _METHODS[force.getNonbondedMethod()].startswith("Cutoff"):
            continue
        tolerance = float(force.getEwaldErrorTolerance())
        given = {"setPMEParameters": force.getPMEParameters()}
        if force.getNonbondedMethod() == openmm.NonbondedForce.LJPME:
            given["setLJPMEParameters"] = force.getLJPMEParameters()
        for call, (with_unit, *grid) in given.items():
            alpha = float(in_unit(with_unit, unit.nanometer**-1))
            if alpha == 0.0 and not 0.0 < tolerance < 0.5:
                raise UnsupportedSystemError(
                    f"the NonbondedForce has the Ewald error tolerance {tolerance:g}; call setEwaldErrorTolerance with "
                    "a number between 0 and 0.5, such as OpenMM's default 5e-4"
                )
            if not 0.0 <= alpha < math.inf:
                raise UnsupportedSystemError(
                    f"{call} was given alpha = {alpha:g}/nm; give a positive number, or 0 to have it chosen from the "
                    "error tolerance"
                )
            if alpha > 0.0 and any(n != 0 and n < _MINIMUM_GRID for n in grid):
                raise UnsupportedSystemError(
                    f"{call} was given the grid {tuple(grid)}, and PME needs {_MINIMUM_GRID} points or more along each "
                    "box vector; approximately 10 points for each nanometre are usual"
                )


def suggest_charge(system: openmm.System, atoms: Iterable[int], topology: app.Topology | None = None) -> int:
    """Return the total charge of a region as the force field has it: the sum of the rounded charges of its parts.

    Whole residues have integer charges in force fields. A side chain without its backbone differs from an integer by up
    to 0.2 e, and the differences of many side chains add up to more than half a charge. Each part is rounded by itself.

    Parameters
    ----------
    system : openmm.System
        System of the force field, before the removal of regions.
    atoms : iterable of int
        Atoms of the region; their virtual sites are included.
    topology : openmm.app.Topology, optional
        Topology whose residues are the parts. Without it, the parts are the atoms of the region that bonds or
        constraints of the System connect inside the region.

    Raises
    ------
    RegionError
        If the charge of a part is too far from an integer, or the Topology has other atoms than the System.
    SelectionError
        If there are no atoms, or they are no different indices of particles.
    UnsupportedSystemError
        If there is not exactly one NonbondedForce.

    Examples
    --------
    For a side chain and a ligand::

        atoms = select(topology, "resname LIG or (resSeq 103 and sidechain)")
        site = Region("site", atoms, charge=suggest_charge(mm_system, atoms, topology))
    """
    check_instance("system", system, openmm.System, "an openmm.System")
    chosen = check_atoms("atoms", atoms, system.getNumParticles())
    if topology is not None:
        check_instance("topology", topology, app.Topology, "an openmm.app.Topology")
    charges = force_field_charges(system)
    particles = complete_with_virtual_sites(system, tuple(sorted(chosen)))
    if topology is None:
        parts = [("", part) for part in _connected_parts(system, particles)]
    else:
        parts = _residue_parts(topology, particles, len(charges))
    total = 0
    for label, part in parts:
        charge = float(charges[list(part)].sum())
        if abs(charge - round(charge)) > ROUNDING:
            where = label or f"which starts with particle {part[0]}"
            raise RegionError(
                f"the force field gives {len(part)} particles of the region, {where}, the charge {charge:+.3f} e, "
                "which is no integer; give the charge yourself, or cut elsewhere: between CA and CB of amino acids"
            )
        total += round(charge)
    return total


def _residue_parts(
    topology: app.Topology, particles: tuple[int, ...], n_particles: int
) -> list[tuple[str, tuple[int, ...]]]:
    """Return the particles of each residue, with the residue's name for messages."""
    if topology.getNumAtoms() != n_particles:
        raise RegionError(
            f"the Topology has {topology.getNumAtoms()} atoms and the System {n_particles} particles; give the "
            "Topology from which the System was made"
        )
    inside = set(particles)
    parts = []
    for residue in topology.residues():
        part = tuple(atom.index for atom in residue.atoms() if atom.index in inside)
        if part:
            parts.append((f"those of {residue.name} {residue.id} in chain {residue.chain.id}", part))
    return parts


def _connected_parts(system: openmm.System, particles: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Return the particles in groups that bonds, constraints and virtual sites connect inside the region."""
    position = {particle: k for k, particle in enumerate(particles)}
    pairs = [pair for pair in _connections(system) if pair[0] in position and pair[1] in position]
    rows = [position[a] for a, _ in pairs]
    columns = [position[b] for _, b in pairs]
    graph = csr_matrix((np.ones(len(pairs)), (rows, columns)), shape=(len(particles), len(particles)))
    count, labels = connected_components(graph, directed=False)
    return [tuple(particles[k] for k in np.flatnonzero(labels == part)) for part in range(count)]


def _connections(system: openmm.System) -> Iterator[tuple[int, int]]:
    """Yield the pairs of particles that a bond, a constraint or a virtual site connects."""
    for force in system.getForces():
        if isinstance(force, openmm.HarmonicBondForce | openmm.CustomBondForce):
            for k in range(force.getNumBonds()):
                first, second = force.getBondParameters(k)[:2]
                yield int(first), int(second)
    for k in range(system.getNumConstraints()):
        first, second, _ = system.getConstraintParameters(k)
        yield int(first), int(second)
    for index in range(system.getNumParticles()):
        if system.isVirtualSite(index):
            site = system.getVirtualSite(index)
            for k in range(site.getNumParticles()):
                yield index, int(site.getParticle(k))
