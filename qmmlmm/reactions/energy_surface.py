"""The energy of a mixed System as a function of some atoms, with the surroundings relaxed."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import openmm
from openmm import unit

from qmmlmm.errors import NonFiniteError, SelectionError, SettingError, listed
from qmmlmm.geometry import Geometry
from qmmlmm.mm.mixed_system import MixedSystem
from qmmlmm.mm.surroundings_system import describe_particles, embedded_atoms
from qmmlmm.reactions.evaluation_log import EvaluationLog, Record, field_of
from qmmlmm.reactions.moving_atoms import held_atoms, moving_atoms
from qmmlmm.reactions.structure import Start, Structure, start_geometry
from qmmlmm.reactions.surface import TOLERANCE, SurfacePoint, SurfaceState
from qmmlmm.reactions.surroundings import SurroundingsModel
from qmmlmm.reactions.whole_molecules import made_whole
from qmmlmm.setting_checks import check_flag, check_instance, check_quantity, check_text
from qmmlmm.units import (
    BOHR_IN_NM,
    FORCE_AU_IN_OPENMM,
    HARTREE_IN_KJ_PER_MOL,
    NM_IN_BOHR,
    FloatArray,
    IntArray,
    Scalar,
    Vectors,
)

SETTLED = 1e-3
"""Gain of relaxed surroundings, hartree, above which their field is computed once more by the terms."""

ROUNDS = 10
"""Largest number of such repetitions at one geometry."""

FORCE = unit.kilojoule_per_mole / unit.nanometer

LARGEST_EXACT = 6000
"""Number of particles up to which energies are computed in double precision by OpenMM's Reference platform."""


class EnergySurface:
    """The energy of a mixed System as a function of some atoms.

    Any Hamiltonian is a surface: QM/MM, ML/MM, QM/ML/MM, xTB. The surroundings are relaxed at every geometry, or held.

    Parameters
    ----------
    mixed : MixedSystem
    positions : Structure, (n_particles, 3) Quantity or array, nm
        Start. Molecules of the moving atoms that the box cuts are made whole.
    atoms : iterable of int or str, optional
        Atoms that move on the surface, or a selection; if not given those of a `Structure`, else the atoms of all
        regions.
    hold : iterable of int or str, optional
        Atoms that do not move at all, or a selection such as ``"not within 8 angstrom of resname LIG"``, of which all
        residues are held that it has wholly; if not given those of a `Structure`. Atoms without mass, such as those
        of `qmmlmm.hold`, are held as well.
    relax : bool
        Whether all other atoms are relaxed, or held.
    box_vectors : (3, 3) Quantity or array, nm, optional
        Box; the default of the System if not given.
    platform : str, optional
        OpenMM platform for everything. If not given, the surroundings are relaxed on the fastest one, and energies of
        Systems of up to 6,000 particles are computed on the Reference platform, in double precision.
    tolerance : Quantity or float, kJ/(mol nm)
        Root mean square force of relaxed surroundings.

    Attributes
    ----------
    mixed : MixedSystem
    box : (3, 3) float array or None, nm
    hold : tuple of int
        Atoms that are held.
    held_among_atoms : tuple of int
        Places in `atoms` of those that are held.
    tolerance : float, kJ/(mol nm)
    log : EvaluationLog or None
        Log in which evaluations are kept, and from which they are recalled.
    evaluations : int
        Number of evaluations of all terms so far: QM calls.

    Raises
    ------
    SelectionError
        If atoms do not exist or cannot move.
    SettingError
        If another argument has a wrong type or value.
    UnsupportedSystemError
        If a constraint joins a moving and a held atom.
    ConvergenceError
        If the relaxation of the surroundings does not end; raised by `evaluate`.

    Notes
    -----
    With E(R, S) the energy for moving atoms R and surroundings S, the surface is the minimum over S. At each R the
    terms are evaluated once. The charges of the regions are then fitted to the forces of their density on the others,
    and a constant force is added to each surrounding atom, so that all forces are exact there. In this field OpenMM
    relaxes the surroundings. Energy and gradient are corrected for their displacement with the energy and forces of
    the same field, so that region and surroundings share one surface: at convergence the displacement is zero, and
    nothing is approximate. If the displacement gains more than 1e-3 hartree, the terms are evaluated again. In a box of
    which more than half does not move and lies beyond the cutoff of all that moves, the relaxation leaves this out;
    its forces are then among the constant ones.

    Source: Kästner et al., J. Chem. Theory Comput. 3, 1064 (2007), whose constant forces these are.
    """

    def __init__(
        self,
        mixed: MixedSystem,
        positions: Start,
        *,
        atoms: Iterable[int] | str | None = None,
        hold: Iterable[int] | str | None = None,
        relax: bool = True,
        box_vectors: Vectors | None = None,
        platform: str | None = None,
        tolerance: Scalar = TOLERANCE,
    ) -> None:
        check_instance("mixed", mixed, MixedSystem)
        check_flag("relax", relax)
        geometry = start_geometry(mixed, positions, box_vectors)
        self.tolerance: float = check_quantity("tolerance", tolerance, FORCE, above=0.0)
        if isinstance(positions, Structure):
            atoms = positions.atoms or None if atoms is None else atoms
            hold = positions.hold if hold is None else hold
        self.mixed = mixed
        self.log: EvaluationLog | None = None
        self.evaluations = 0
        self.box = geometry.box
        self._atoms = moving_atoms(mixed, atoms)
        held = held_atoms(mixed, () if hold is None else hold, geometry)
        self.hold: tuple[int, ...] = held
        both = sorted(set(held) & set(self._atoms.tolist()))
        self.held_among_atoms: tuple[int, ...] = tuple(int(np.flatnonzero(self._atoms == a)[0]) for a in both)
        if len(both) == len(self._atoms):
            raise SelectionError("hold names all the atoms that move on the surface; hold fewer, or choose other atoms")
        whole = made_whole(mixed.topology, geometry, self._atoms)
        exact, fast = _platforms(platform, len(whole))
        self._context = _context(mixed.system, exact)
        if geometry.box is not None:
            self._context.setPeriodicBoxVectors(*geometry.box)
        self._context.setPositions(whole)
        self._context.computeVirtualSites()
        self._positions: FloatArray = self._current_positions()
        self._surroundings: SurroundingsModel | None = None
        fixed = {*held, *self._atoms.tolist()}
        if relax and len(fixed) < len(whole):
            fixed.update(_massless(mixed.system))
            left = sorted(set(embedded_atoms(mixed)) - fixed)
            if left:
                raise SelectionError(
                    f"atoms of a region neither move nor are held: {describe_particles(mixed, left)}; the force field "
                    "cannot relax them. Name them in atoms or in hold"
                )
            model = SurroundingsModel(mixed, fixed, self._positions, geometry.box, fast, exact, self.tolerance)
            self._surroundings = model if len(model.moving) else None

    @property
    def atoms(self) -> IntArray:
        """Particles that move on the surface."""
        return self._atoms

    @property
    def symbols(self) -> list[str]:
        """Chemical symbols of the moving atoms."""
        elements = [atom.element for atom in self.mixed.topology.atoms()]
        return [elements[k].symbol for k in self._atoms]

    @property
    def masses(self) -> FloatArray:
        """Masses of the moving atoms, (n_atoms,) Da; of their elements if the System has none."""
        elements = [atom.element for atom in self.mixed.topology.atoms()]
        found = [self.mixed.system.getParticleMass(int(k))._value or elements[k].mass._value for k in self._atoms]
        return np.array(found, dtype=float)

    @property
    def relaxes(self) -> bool:
        """Whether surroundings are relaxed."""
        return self._surroundings is not None

    @property
    def is_free(self) -> bool:
        """Whether there is nothing but the moving atoms, so that the energy does not change as they all rotate."""
        return len(self._atoms) == self.mixed.system.getNumParticles() and self.box is None

    @property
    def coordinates(self) -> FloatArray:
        """Present coordinates of the moving atoms, (n_atoms, 3) bohr."""
        return self._positions[self._atoms] * NM_IN_BOHR

    @property
    def state(self) -> SurfaceState:
        """Positions and field from which the next evaluation continues."""
        return SurfaceState(self._positions.copy(), None if self._surroundings is None else self._surroundings.field)

    @state.setter
    def state(self, state: SurfaceState) -> None:
        self._positions = state.positions.copy()
        if self._surroundings is not None and state.field is not None:
            self._surroundings.use(state.field)

    def begin(self, state: SurfaceState) -> None:
        """Continue from a state; without a field the surroundings begin in that of the force field."""
        self.state = state
        if self._surroundings is not None and state.field is None:
            self._surroundings.forget()

    def evaluate(self, coordinates: FloatArray) -> SurfacePoint:
        """Return energy and gradient, and relax the surroundings.

        Parameters
        ----------
        coordinates : (n_atoms, 3) float array, bohr

        Raises
        ------
        EvaluationError
            If a term fails; also other exceptions of a term, in their original class.
        """
        known = self.recalled(coordinates)
        if known is not None:
            return known
        point = self._computed(coordinates)
        self.keep(coordinates, point)
        return point

    def recalled(self, coordinates: FloatArray) -> SurfacePoint | None:
        """Return the next point of the log; None if it has to be computed.

        Parameters
        ----------
        coordinates : (n_atoms, 3) float array, bohr
        """
        known = None if self.log is None else self._recalled(coordinates)
        return None if known is None else self._known(known, float(known["extra"]))

    def keep(self, coordinates: FloatArray, point: SurfacePoint) -> None:
        """Write a point and the present state into the log, if there is one.

        Parameters
        ----------
        coordinates : (n_atoms, 3) float array, bohr
        point : SurfacePoint
        """
        if self.log is not None:
            field = self.state.field
            self.log.keep(coordinates, point.energy, point.gradient, point.gain, self._positions, field)

    def _computed(self, coordinates: FloatArray) -> SurfacePoint:
        positions = self._placed(coordinates)
        if self._surroundings is None:
            energy, forces, positions = self.whole_system(positions)
            self._positions = positions
            return SurfacePoint(energy, -forces[self._atoms] / FORCE_AU_IN_OPENMM, positions)
        if self._surroundings.is_fitted:
            positions = self._surroundings.relaxed(positions)
        for _ in range(ROUNDS):
            energy, forces, positions = self.whole_system(positions)
            before, forces_before = self._surroundings.fit(positions, forces)
            relaxed = self._surroundings.relaxed(positions)
            after, forces_after = self._surroundings.energy_and_forces(relaxed)
            gain = (before - after) / HARTREE_IN_KJ_PER_MOL
            positions = relaxed
            if gain < SETTLED:
                break
        corrected = (forces + forces_after - forces_before)[self._atoms]
        self._positions = positions
        return SurfacePoint(energy - gain, -corrected / FORCE_AU_IN_OPENMM, positions, gain)

    def with_held_surroundings(self, coordinates: FloatArray) -> SurfacePoint:
        """Return energy and gradient with all other atoms where they are, for Hessians; nothing is remembered."""
        energy, forces, positions = self.whole_system(self._placed(coordinates))
        return SurfacePoint(energy, -forces[self._atoms] / FORCE_AU_IN_OPENMM, positions)

    def whole_system(self, positions: FloatArray) -> tuple[float, FloatArray, FloatArray]:
        """Return the energy, hartree, all forces, kJ/(mol nm), and positions, nm, with virtual sites in place."""
        self._context.setPositions(positions)
        self._context.computeVirtualSites()
        self.evaluations += 1
        try:
            state = self._context.getState(energy=True, forces=True, positions=True)
        except openmm.OpenMMException as error:
            self.mixed.raise_original(error)
        energy = state.getPotentialEnergy()._value / HARTREE_IN_KJ_PER_MOL
        forces = np.array(state.getForces(asNumpy=True).value_in_unit(FORCE))
        if not np.isfinite(energy) or not np.isfinite(forces).all():
            wrong = np.flatnonzero(~np.isfinite(forces).all(axis=1))
            raise NonFiniteError(f"energy or forces are not finite numbers, on atoms {listed(wrong) or 'none'}")
        return energy, forces, np.array(state.getPositions(asNumpy=True).value_in_unit(unit.nanometer))

    def structure(self, point: SurfacePoint) -> Structure:
        """Return the structure of all particles at a point."""
        box = None if self.box is None else self.box * unit.nanometer
        energy = point.energy * HARTREE_IN_KJ_PER_MOL * unit.kilojoule_per_mole
        atoms = tuple(self._atoms.tolist())
        return Structure(self.mixed.topology, point.positions * unit.nanometer, box, energy, atoms, self.hold)

    def verified(self) -> tuple[SurfacePoint, float]:
        """Return the point of the present positions from a new evaluation, and the force on the surroundings.

        Returns
        -------
        point : SurfacePoint
        surroundings_force : float, kJ/(mol nm)
            Root mean square force on the moving surroundings, without its part along constraints; zero if there are
            none.
        """
        coordinates = self.coordinates
        known = None if self.log is None else self._recalled(coordinates)
        if known is not None:
            return self._known(known), float(known["extra"])
        energy, forces, positions = self.whole_system(self._positions)
        self._positions = positions
        point = SurfacePoint(energy, -forces[self._atoms] / FORCE_AU_IN_OPENMM, positions)
        rest = 0.0 if self._surroundings is None else self._surroundings.residual_force(positions, forces)
        if self.log is not None:
            self.log.keep(coordinates, point.energy, point.gradient, rest, positions, self.state.field)
        return point, rest

    def _known(self, record: Record, gain: float = 0.0) -> SurfacePoint:
        return SurfacePoint(float(record["energy"]), record["gradient"], self._positions.copy(), gain)

    def _recalled(self, coordinates: FloatArray) -> Record | None:
        assert self.log is not None
        found = self.log.recalled(coordinates)
        if found is None:
            return None
        record, state = found
        self._positions = self._placed(record["coordinates"]) if state is None else state["positions"]
        if state is not None:
            self.state = SurfaceState(state["positions"], field_of(state))
        return record

    def geometry(self) -> Geometry:
        """Return the present geometry of all particles, nm."""
        return Geometry(self._positions.copy(), self.box)

    def _placed(self, coordinates: FloatArray) -> FloatArray:
        positions = self._positions.copy()
        moved = np.asarray(coordinates, dtype=float).reshape(-1, 3) * BOHR_IN_NM
        # geomeTRIC's constraints hold to its convergence only.
        free = np.delete(np.arange(len(moved)), self.held_among_atoms)
        positions[self._atoms[free]] = moved[free]
        return positions

    def _current_positions(self) -> FloatArray:
        state = self._context.getState(positions=True)
        return np.array(state.getPositions(asNumpy=True).value_in_unit(unit.nanometer))


def _massless(system: openmm.System) -> set[int]:
    return {
        k
        for k in range(system.getNumParticles())
        if system.getParticleMass(k)._value == 0.0 and not system.isVirtualSite(k)
    }


def _platforms(name: str | None, n_particles: int) -> tuple[openmm.Platform | None, openmm.Platform | None]:
    """Return the platform of energies and that of the minimisation."""
    if name is None:
        exact = openmm.Platform.getPlatform("Reference") if n_particles <= LARGEST_EXACT else None
        return exact, None
    known = [openmm.Platform.getPlatform(k).getName() for k in range(openmm.Platform.getNumPlatforms())]
    if check_text("platform", name) not in known:
        raise SettingError(f"platform is one of {listed(known)}, got {name!r}")
    platform = openmm.Platform.getPlatform(name)
    return platform, platform


def _context(system: openmm.System, platform: openmm.Platform | None) -> openmm.Context:
    integrator = openmm.VerletIntegrator(0.001)
    return openmm.Context(system, integrator) if platform is None else openmm.Context(system, integrator, platform)
