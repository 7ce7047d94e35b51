"""Excited states by linear response: energies, relaxed densities and gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from pyscf import scf, tdscf

from qmmlmm.errors import ConvergenceError, EvaluationError, UnstableReferenceError, listed
from qmmlmm.qm.excited import TDA, TDDFT
from qmmlmm.qm.method import is_hartree_fock
from qmmlmm.qm.states.accelerated_gradient import derivatives, without_derivatives
from qmmlmm.qm.states.diagonalisation import lowest_response, lowest_symmetric
from qmmlmm.qm.states.electronic_state import ElectronicState
from qmmlmm.qm.states.grid_response import grid_response
from qmmlmm.qm.states.orbital_response import OrbitalResponse, with_solver
from qmmlmm.units import FloatArray

LARGEST_MISS = 10.0
"""Largest error of the orbital response, in tolerances."""

FINEST_RESPONSE = 1e-10
"""Smallest tolerance that round-off allows."""


@dataclass(frozen=True)
class Amplitudes:
    """The converged excited states of one geometry.

    Parameters
    ----------
    method : pyscf.tdscf.rhf.TDBase
    energies : (m,) float array, hartree
        Excitation energies, ascending.
    products : int
        Number of products of the response matrix with a vector, a measure of the cost.
    """

    method: Any
    energies: FloatArray
    products: int

    @property
    def unrestricted(self) -> bool:
        """Whether spin up and spin down have separate orbitals."""
        return isinstance(self.method._scf, scf.uhf.UHF)

    @property
    def triplet(self) -> bool:
        """Whether these are triplets of a restricted reference."""
        return not self.unrestricted and not self.method.singlet

    def with_signs(self, signs: FloatArray) -> Amplitudes:
        """Return the same states, each multiplied by a sign."""
        for index, sign in enumerate(signs):
            if sign < 0.0:
                self.method.xy[index] = _negative(self.method.xy[index])
        return self

    def excitations(self) -> list[tuple[FloatArray, ...]]:
        """Return X of each state, (n_occupied, n_empty), for one spin or for both."""
        return [self._parts(xy[0]) for xy in self.method.xy]

    def guesses(self) -> list[tuple[FloatArray, ...]]:
        """Return X of each state, and Y if there is any."""
        return self.excitations() + [
            self._parts(xy[1])
            for xy in self.method.xy
            if np.any(np.concatenate([part.ravel() for part in self._parts(xy[1])]))
        ]

    def _parts(self, amplitudes: Any) -> tuple[FloatArray, ...]:
        return tuple(amplitudes) if self.unrestricted else (np.asarray(amplitudes),)


def solve(
    mean_field: Any,
    settings: TDA | TDDFT,
    guess: list[tuple[FloatArray, ...]],
    term: str,
    save: Callable[[], str],
) -> Amplitudes:
    """Converge the excited states of a converged mean-field object.

    Parameters
    ----------
    mean_field : pyscf.scf.hf.SCF
    settings : TDA or TDDFT
    guess : list of tuple of float arrays
        Excitations in the form of `Amplitudes.guesses`, in the orbitals of this object; may be empty.
    term : str
        Name of the term, for messages.
    save : callable
        Function that saves the geometry and returns a sentence with the path.

    Raises
    ------
    EvaluationError
        If there are fewer excitations than states, or the reference is not stable.
    ConvergenceError
        If the amplitudes do not converge.
    """
    count = settings.n_states - 1
    possible = sum(len(occupied) * len(empty) for occupied, empty in orbital_gaps(mean_field))
    if count > possible:
        raise EvaluationError(
            f"{term}: n_states={settings.n_states} asks for {count} excited states, but the basis set has {possible} "
            "single excitations; lower n_states or take a larger basis set"
        )
    method = _method(mean_field, settings)
    trial = np.array([np.concatenate([part.ravel() for part in parts]) for parts in guess])
    # With the lowest excitations between orbitals, a state whose energy has decreased is not missed.
    lowest = _lowest_excitations(mean_field, count if guess else 2 * count)
    trial = np.concatenate([trial.reshape(len(guess), possible), lowest])
    product, _ = method.gen_vind()
    gaps = np.concatenate([(empty - occupied[:, None]).ravel() for occupied, empty in orbital_gaps(mean_field)])

    def both(vectors: FloatArray) -> tuple[FloatArray, FloatArray]:
        images = np.asarray(product(np.hstack([vectors, np.zeros_like(vectors)])))
        return images[:, :possible], -images[:, possible:]

    limits = (count, settings.conv_tol, settings.max_cycle)
    try:
        if isinstance(settings, TDA):
            found = lowest_symmetric(product, gaps, trial, *limits)
        else:
            found = lowest_response(both, gaps, trial, *limits)
    except UnstableReferenceError as error:
        raise EvaluationError(
            f"{term}: the reference is not stable, and TDDFT has an imaginary excitation energy ({error}); {save()}. "
            "Near a crossing with the ground state and for stretched bonds use TDA, which has real energies there"
        ) from error
    unconverged = np.flatnonzero(~(found.residuals <= settings.conv_tol))
    if len(unconverged):
        raise ConvergenceError(
            f"{term}: excited states {listed(unconverged + 1)} of {count} did not converge in {found.cycles} cycles "
            f"(residual {found.residuals[unconverged].max():.1e}); {save()}. Check the geometry first; then raise "
            f"max_cycle of {type(settings).__name__}, or n_states if the highest states come in groups"
        )
    method.e = found.values
    method.xy = [_shaped(x, y, mean_field) for x, y in zip(found.x, found.y, strict=True)]
    method.converged = [True] * count
    return Amplitudes(method, found.values, found.products)


def excited_state(
    amplitudes: Amplitudes, index: int, functional: str, term: str, accelerated: bool = False
) -> ElectronicState:
    """Return energy, gradient and relaxed density of an excited state.

    Parameters
    ----------
    amplitudes : Amplitudes
    index : int
        0 is the lowest excited state.
    functional : str
        Method of the reference.
    term : str
        Name of the term, for messages.
    accelerated : bool
        Whether derivatives of the functional and the repulsion are array operations of this package.

    Notes
    -----
    The external field is a one-electron operator that does not depend on the density: the images of the region act
    through its fixed reference charges. So the equations for the relaxed density (Furche and Ahlrichs, J.
    Chem. Phys. 117, 7433 (2002)) have no term from it, and its part of the gradient is the trace of its derivative
    with the relaxed density.

    Raises
    ------
    ConvergenceError
        If the response of the orbitals does not converge.
    """
    method = amplitudes.method
    mean_field = method._scf
    gradient_method = method.nuc_grad_method()
    gradient_method.verbose = 0
    tolerance = max(float(method.conv_tol), FINEST_RESPONSE)
    solver = OrbitalResponse(tolerance)
    found: dict[str, Any] = {}

    def keep_intermediates(atom: int, variables: dict[str, Any]) -> float:
        # PySCF passes its intermediates to this hook for extra forces; nothing is added.
        if not found:
            found.update({name: variables[name] for name in NAMES[amplitudes.unrestricted]})
        return 0.0

    gradient_method.extra_force = keep_intermediates
    module = import_module(type(gradient_method).__module__)
    others = without_derivatives(gradient_method, mean_field, amplitudes.triplet) if accelerated else {}
    electronic = with_solver(module.grad_elec, solver, others)
    arguments = () if amplitudes.unrestricted else (method.singlet,)
    gradient = np.asarray(electronic(gradient_method, method.xy[index], *arguments, None, method.max_memory))
    gradient = gradient + gradient_method.grad_nuc()
    if mean_field.do_disp():
        # PySCF leaves it out of this gradient.
        gradient = gradient + mean_field.nuc_grad_method().get_dispersion()
    if not solver.error < LARGEST_MISS * tolerance:
        raise ConvergenceError(
            f"{term}: the response of the orbitals to excited state {index + 1} did not converge (error "
            f"{solver.error:.1e}); the reference is close to an instability"
        )
    ground, difference, transition, rotation = _densities(found, amplitudes)
    if accelerated:
        gradient = gradient + derivatives(mean_field, ground, difference, transition, rotation)
    elif not is_hartree_fock(functional):
        gradient = gradient + grid_response(mean_field, ground, difference, transition)
    relaxed = ground + difference
    return ElectronicState(
        energy=float(mean_field.e_tot + amplitudes.energies[index]),
        gradient=gradient,
        density=relaxed.sum(axis=0),
        spin_density=relaxed[0] - relaxed[1] if amplitudes.unrestricted else None,
    )


NAMES = {
    False: ("oo0", "dmz1doo", "dmxpy", "dmxmy"),
    True: ("oo0a", "oo0b", "dmz1dooa", "dmz1doob", "dmxpya", "dmxpyb", "dmxmya", "dmxmyb"),
}
"""PySCF's names for the density of the reference, the relaxed difference and the transition densities of X + Y and
X - Y, with restricted and unrestricted orbitals."""


def orbital_gaps(mean_field: Any) -> list[tuple[FloatArray, FloatArray]]:
    """Return the energies of the occupied and of the empty orbitals, for one spin or for both."""
    energies, occupations = np.asarray(mean_field.mo_energy), np.asarray(mean_field.mo_occ)
    if occupations.ndim == 1:
        energies, occupations = energies[None], occupations[None]
    return [(e[n > 0], e[n == 0]) for e, n in zip(energies, occupations, strict=True)]


def transition_moments(amplitudes: Amplitudes) -> tuple[FloatArray, FloatArray]:
    """Return the transition dipoles from the ground state, (m, 3) e bohr, and the oscillator strengths, (m,)."""
    # Electrons have the charge -1; PySCF's sign is that of the positions.
    dipoles = -np.asarray(amplitudes.method.transition_dipole())
    return dipoles, 2.0 / 3.0 * amplitudes.energies * (dipoles**2).sum(axis=1)


def _negative(part: Any) -> Any:
    """Return minus an array, a number, or a tuple of these."""
    return tuple(_negative(p) for p in part) if isinstance(part, tuple | list) else -part


def _method(mean_field: Any, settings: TDA | TDDFT) -> Any:
    """Return PySCF's object for products with trial vectors and transition moments."""
    if isinstance(settings, TDA):
        method = mean_field.TDA()
    # PySCF's Hartree-Fock objects have no functional, and its Kohn-Sham objects share no base class.
    elif hasattr(mean_field, "xc"):
        method = (tdscf.uks if isinstance(mean_field, scf.uhf.UHF) else tdscf.rks).TDDFT(mean_field)
    else:
        method = mean_field.TDHF()
    method.verbose = 0
    method.conv_tol = settings.conv_tol
    if not isinstance(mean_field, scf.uhf.UHF):
        method.singlet = settings.spin != "triplet"
    return method


def _lowest_excitations(mean_field: Any, count: int) -> FloatArray:
    """Return the excitations between orbitals of the lowest energies."""
    gaps = np.concatenate([(empty - occupied[:, None]).ravel() for occupied, empty in orbital_gaps(mean_field)])
    order = np.argsort(gaps, kind="stable")[:count]
    vectors = np.zeros((len(order), len(gaps)))
    vectors[np.arange(len(order)), order] = 1.0
    return vectors


def _shaped(x: FloatArray, y: FloatArray, mean_field: Any) -> tuple[Any, Any]:
    """Return X and Y in PySCF's form: of norm 1/2 for the one spin of restricted orbitals, of norm 1 for both."""
    shapes = [(len(occupied), len(empty)) for occupied, empty in orbital_gaps(mean_field)]
    if len(shapes) == 1:
        return np.sqrt(0.5) * x.reshape(shapes[0]), np.sqrt(0.5) * y.reshape(shapes[0])
    cut = shapes[0][0] * shapes[0][1]
    up, down = (tuple(v.reshape(s) for v, s in zip(np.split(z, [cut]), shapes, strict=True)) for z in (x, y))
    return up, down


def _densities(found: dict[str, Any], amplitudes: Amplitudes) -> tuple[FloatArray, ...]:
    """Return the densities of the reference, relaxed difference and transition, (2, n_ao, n_ao) each.

    These are symmetric, and a fourth one is antisymmetric, the transition density of X - Y.
    """
    if amplitudes.unrestricted:
        ground = np.array([found["oo0a"], found["oo0b"]])
        difference = 0.5 * np.array([found["dmz1dooa"], found["dmz1doob"]])
        transition = np.array([found["dmxpya"], found["dmxpyb"]])
        rotation = np.array([found["dmxmya"], found["dmxmyb"]])
    else:
        sign = 1.0 if amplitudes.method.singlet else -1.0
        ground = np.array([found["oo0"]] * 2)
        difference = 0.5 * np.array([found["dmz1doo"]] * 2)
        transition = np.array([found["dmxpy"], sign * found["dmxpy"]])
        rotation = np.array([found["dmxmy"], sign * found["dmxmy"]])
    antisymmetric = 0.5 * (rotation - rotation.transpose(0, 2, 1))
    return ground, _symmetric(difference), _symmetric(transition), antisymmetric


def _symmetric(matrices: FloatArray) -> FloatArray:
    return 0.5 * (matrices + matrices.transpose(0, 2, 1))
