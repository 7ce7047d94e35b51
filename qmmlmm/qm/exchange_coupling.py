"""Exchange coupling of unpaired electrons from a broken-symmetry determinant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from qmmlmm.coupling.potential import ExternalField, RegionSpecification
from qmmlmm.errors import ConvergenceError, EvaluationError, RegionError, listed
from qmmlmm.geometry import Geometry
from qmmlmm.qm.blas_threads import with_one_blas_thread
from qmmlmm.qm.potential import PySCFPotential
from qmmlmm.qm.scf.convergence import ScfRecord, converge
from qmmlmm.setting_checks import check_array, check_atoms, check_instance
from qmmlmm.units import FloatArray

LOCALISED = 0.75
"""Least share of an orbital on a group of atoms for its electron to belong to them."""

COLLAPSED = 0.1
"""Share of the expected <S2> below which the broken symmetry is lost."""


@dataclass(frozen=True)
class ExchangeCoupling:
    """Energies of the high-spin and the broken-symmetry determinant, and their exchange coupling.

    Parameters
    ----------
    high_spin_energy, broken_symmetry_energy : float, hartree
    high_spin_s_squared, broken_symmetry_s_squared : float
        Expectation values of S2.
    spin_populations : (n,) float array
        Mulliken spin populations of the broken-symmetry determinant.

    Notes
    -----
    The sign belongs to H = -2 J S1.S2: J is positive for parallel spins (ferromagnetic) and negative for antiparallel
    ones. Yamaguchi's projection, J = (E_BS - E_HS)/(<S2>_HS - <S2>_BS): Soda et al., Chem. Phys. Lett. 319, 223 (2000).
    """

    high_spin_energy: float
    broken_symmetry_energy: float
    high_spin_s_squared: float
    broken_symmetry_s_squared: float
    spin_populations: FloatArray

    @property
    def coupling(self) -> float:
        """J of H = -2 J S1.S2, hartree."""
        spins = self.high_spin_s_squared - self.broken_symmetry_s_squared
        return (self.broken_symmetry_energy - self.high_spin_energy) / spins

    @property
    def singlet_triplet_gap(self) -> float:
        """E(singlet) - E(triplet) = 2 J of two unpaired electrons, hartree."""
        return 2.0 * self.coupling


@with_one_blas_thread
def exchange_coupling(
    potential: PySCFPotential,
    specification: RegionSpecification,
    flipped_atoms: Sequence[int],
    positions: FloatArray,
    external_field: ExternalField | None = None,
) -> ExchangeCoupling:
    """Return the coupling between the unpaired electrons of some atoms and those of the others.

    Parameters
    ----------
    potential : PySCFPotential
        Potential of the ground state.
    specification : RegionSpecification
        Specification with the multiplicity of the high-spin state, in which all unpaired electrons are parallel.
    flipped_atoms : sequence of int
        Atoms of the region whose unpaired electrons get the other spin.
    positions : (n, 3) float array, bohr
        Atoms and link atoms; ``EvaluatedTerm.field_at(geometry).sites`` for a region in a System.
    external_field : ExternalField, optional
        Field of the surroundings; ``EvaluatedTerm.field_at(geometry).external_field()`` for a region in a System.

    Raises
    ------
    SettingError
        If an argument has another type or shape.
    RegionError
        If there are fewer than two unpaired electrons, or atoms that are not in the region.
    EvaluationError
        If unpaired electrons do not belong to either group of atoms, or the broken symmetry is lost.
    ConvergenceError
        If a determinant does not converge.

    Notes
    -----
    The guess flips the spins in singly occupied orbitals of the high-spin determinant, localised on the atoms: the
    eigenvectors of these atoms' Loewdin population. Swapping density blocks of atoms instead converges to the closed
    shell.
    """
    check_instance("potential", potential, PySCFPotential)
    check_instance("specification", specification, RegionSpecification)
    positions = check_array("positions", positions, (len(specification.atomic_numbers), 3))
    if external_field is not None:
        check_instance("external_field", external_field, ExternalField)
    term = f"term {specification.name!r}"
    unpaired = specification.multiplicity - 1
    if unpaired < 2:
        raise RegionError(
            f"{term}: an exchange coupling needs at least two unpaired electrons; give the multiplicity of the "
            f"high-spin state (3 for two electrons), got {specification.multiplicity}"
        )
    atoms = check_atoms(f"{term}: flipped_atoms", flipped_atoms, len(specification.atomic_numbers), error=RegionError)
    unrestricted = replace(potential, unrestricted=True, excited=None, state=0, follow_state=False)
    evaluator = unrestricted.create_evaluator(specification)
    high = evaluator.mean_field(Geometry(positions), external_field)

    def save() -> str:
        return "nothing was saved"

    converge(high, [], f"{term}, high spin", save, ScfRecord())
    kept, turned = _local_orbitals(high, unpaired, atoms, term)
    shared = _shared_orbitals(high)
    multiplicity = abs(kept.shape[1] - turned.shape[1]) + 1
    if kept.shape[1] < turned.shape[1]:
        kept, turned = turned, kept
    low = unrestricted.create_evaluator(replace(specification, multiplicity=multiplicity))
    broken = low.mean_field(Geometry(positions), external_field)
    up, down = np.hstack([shared, kept]), np.hstack([shared, turned])
    broken.kernel(dm0=np.array([up @ up.T, down @ down.T]))
    if not broken.converged:
        raise ConvergenceError(
            f"{term}, broken symmetry: the self-consistent field did not converge in {potential.max_cycle} cycles; "
            "raise max_cycle"
        )
    s_squared = float(broken.spin_square()[0])
    spin = 0.5 * (multiplicity - 1)
    # Without overlap of the orbitals <S2> is S(S + 1) plus one for each flipped electron.
    if s_squared - spin * (spin + 1.0) < COLLAPSED * turned.shape[1]:
        raise EvaluationError(
            f"{term}: the broken symmetry was lost, <S2> = {s_squared:.3f}: these electrons pair up to a closed shell, "
            "and there is no exchange coupling between local spins"
        )
    density = np.asarray(broken.make_rdm1())
    by_function = np.einsum("pq,pq->p", density[0] - density[1], broken.get_ovlp())
    starts = broken.mol.aoslice_by_atom()[:, 2]
    return ExchangeCoupling(
        high_spin_energy=float(high.e_tot),
        broken_symmetry_energy=float(broken.e_tot),
        high_spin_s_squared=float(high.spin_square()[0]),
        broken_symmetry_s_squared=s_squared,
        spin_populations=np.add.reduceat(by_function, starts),
    )


def _corresponding(high: Any) -> tuple[FloatArray, FloatArray]:
    """Return the occupied orbitals of spin up in the order of their overlap with those of spin down."""
    overlap = np.asarray(high.get_ovlp())
    up, down = (c[:, n > 0] for c, n in zip(high.mo_coeff, high.mo_occ, strict=True))
    turn, values, _ = np.linalg.svd(up.T @ overlap @ down)
    return up @ turn, values


def _shared_orbitals(high: Any) -> FloatArray:
    orbitals, values = _corresponding(high)
    return orbitals[:, : len(values)]


def _local_orbitals(high: Any, unpaired: int, atoms: Sequence[int], term: str) -> tuple[FloatArray, FloatArray]:
    """Return the singly occupied orbitals of the other atoms and of these."""
    orbitals, _ = _corresponding(high)
    single = orbitals[:, orbitals.shape[1] - unpaired :]
    values, vectors = np.linalg.eigh(np.asarray(high.get_ovlp()))
    root = (vectors * np.sqrt(values)) @ vectors.T
    slices = high.mol.aoslice_by_atom()
    functions = np.concatenate([np.arange(slices[atom, 2], slices[atom, 3]) for atom in atoms])
    on_atoms = (root @ single)[functions]
    shares, turn = np.linalg.eigh(on_atoms.T @ on_atoms)
    single = single @ turn
    unclear = shares[(shares > 1.0 - LOCALISED) & (shares < LOCALISED)]
    turned = shares >= LOCALISED
    if len(unclear) or not turned.any() or turned.all():
        raise EvaluationError(
            f"{term}: of {unpaired} unpaired electrons, the flipped atoms {listed(atoms)} hold the shares "
            f"{listed([f'{share:.2f}' for share in shares])}; each electron has to belong to these atoms or to the "
            "others, and some to each. Choose other atoms, with the ligands that share the spin"
        )
    return single[:, ~turned], single[:, turned]
