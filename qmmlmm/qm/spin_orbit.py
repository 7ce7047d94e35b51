"""Spin-orbit coupling of singlets and triplets from one CASSCF for both."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pyscf import fci, mcscf

from qmmlmm.coupling.potential import ExternalField, RegionSpecification
from qmmlmm.errors import ConvergenceError, PotentialError, RegionError, listed
from qmmlmm.geometry import Geometry
from qmmlmm.qm.blas_threads import with_one_blas_thread
from qmmlmm.qm.excited import CASSCF, spin_states
from qmmlmm.qm.potential import PySCFPotential
from qmmlmm.qm.scf.convergence import ScfRecord, converge
from qmmlmm.qm.states.active_space import starting_orbitals
from qmmlmm.qm.states.full_ci import SPIN_ERROR, full_ci
from qmmlmm.setting_checks import check_array, check_instance, is_whole_number
from qmmlmm.units import SPEED_OF_LIGHT, FloatArray

FINEST_VECTORS = 1e-12  # hartree

INDEPENDENT = 1e-20
"""Norm below which a rotation of the orbitals counts as dependent on others. With PySCF's 1e-14, small symmetric
molecules do not converge beyond a gradient of 2e-5."""

HEAVIEST = 18
"""Argon, the last element with a known effective charge."""


@dataclass(frozen=True)
class SpinOrbitCoupling:
    """Singlets and triplets of one set of orbitals, with their spin-orbit couplings.

    Parameters
    ----------
    singlet_energies : (n_singlets,) float array, hartree
    triplet_energies : (n_triplets,) float array, hartree
    components : (n_singlets, n_triplets, 3) float array, hartree
        Couplings with the Cartesian sublevels of the triplets, divided by i; the sign of each state is arbitrary.
    """

    singlet_energies: FloatArray
    triplet_energies: FloatArray
    components: FloatArray

    @property
    def strengths(self) -> FloatArray:
        """Root of the sum of squares over the sublevels, (n_singlets, n_triplets) hartree."""
        return np.asarray(np.linalg.norm(self.components, axis=2))


@with_one_blas_thread
def spin_orbit_coupling(
    potential: PySCFPotential,
    specification: RegionSpecification,
    positions: FloatArray,
    external_field: ExternalField | None = None,
    *,
    n_singlets: int = 1,
    n_triplets: int = 1,
) -> SpinOrbitCoupling:
    """Return the coupling of the lowest singlets with the lowest triplets.

    Parameters
    ----------
    potential : PySCFPotential
        Potential with ``excited=CASSCF(...)``, whose active space is used; `n_singlets` and `n_triplets` replace its
        number of states.
    specification : RegionSpecification
        Specification with an even number of electrons; its multiplicity is not used.
    positions : (n, 3) float array, bohr
        Atoms and link atoms; ``EvaluatedTerm.field_at(geometry).sites`` for a region in a System.
    external_field : ExternalField, optional
        Field of the surroundings; ``EvaluatedTerm.field_at(geometry).external_field()`` for a region in a System.
    n_singlets, n_triplets : int
        Numbers of states, which are averaged with the same weight and have the same orbitals.

    Raises
    ------
    SettingError
        If an argument has another type or shape.
    PotentialError
        If there is no active space, it does not have these states, or the basis has core potentials.
    RegionError
        If the number of electrons is odd, or an element is heavier than argon.
    ConvergenceError
        If the orbitals do not converge, or a state has another multiplicity.

    Notes
    -----
    One-electron Breit-Pauli operator with effective nuclear charges, in atomic units

        H = 1/(2 c^2) sum_A Z_A* sum_i (r_iA x p_i) . s_i / r_iA^3

    in which the charges include the screening by the two-electron part: Koseki, Schmidt and Gordon, J. Phys. Chem.
    96, 10768 (1992) and 99, 12764 (1995): Z* = (0.40 + 0.05 n) Z from lithium to fluorine and (0.925 - 0.0125 n) Z
    from sodium to chlorine, with n valence electrons; for small active spaces and bases like 6-31G(d). By the
    Wigner-Eckart theorem one transition density, that of spin up less spin down between the singlet and the triplet
    with M = 0, gives all three components.
    """
    check_instance("potential", potential, PySCFPotential)
    check_instance("specification", specification, RegionSpecification)
    positions = check_array("positions", positions, (len(specification.atomic_numbers), 3))
    if external_field is not None:
        check_instance("external_field", external_field, ExternalField)
    settings = potential.excited
    term = f"term {specification.name!r}"
    if not isinstance(settings, CASSCF):
        raise PotentialError(
            f"{term}: spin-orbit coupling needs an active space: give the potential excited=CASSCF(n_states, "
            f"n_electrons, n_orbitals); got excited={settings!r}"
        )
    for name, count, multiplicity in (("n_singlets", n_singlets, 1), ("n_triplets", n_triplets, 3)):
        found = spin_states(settings.n_electrons, settings.n_orbitals, multiplicity)
        if not is_whole_number(count) or not 1 <= count <= found:
            raise PotentialError(
                f"{term}: {name} is an integer from 1 to {found}, the states of {settings.n_electrons} electrons in "
                f"{settings.n_orbitals} orbitals; got {count!r}"
            )
    heavy = [int(z) for z in specification.atomic_numbers if z > HEAVIEST]
    if heavy or (int(np.sum(specification.atomic_numbers)) - specification.charge) % 2:
        raise RegionError(
            f"{term}: spin-orbit coupling of singlets and triplets is for an even number of electrons and elements up "
            f"to argon, which have effective charges; got charge {specification.charge} and the atomic numbers "
            f"{listed(specification.atomic_numbers)}"
        )
    evaluator = potential.create_evaluator(replace(specification, multiplicity=1))
    mean_field = evaluator.mean_field(Geometry(positions), external_field)
    if mean_field.mol.has_ecp():
        raise PotentialError(
            f"{term}: basis {potential.basis!r} has core potentials, without the field next to the nucleus; "
            "take a basis set for all electrons"
        )
    converge(mean_field, [], term, lambda: "nothing was saved", ScfRecord())
    casscf = _averaged(mean_field, settings, n_singlets, n_triplets, term)
    components = np.empty((n_singlets, n_triplets, 3))
    active = casscf.mo_coeff[:, casscf.ncore : casscf.ncore + casscf.ncas]
    operator = np.einsum("pa,xpq,qb->xab", active, _operator(mean_field.mol), active)
    for i, singlet in enumerate(casscf.ci[:n_singlets]):
        for j, triplet in enumerate(casscf.ci[n_singlets:]):
            up, down = fci.direct_spin1.trans_rdm1s(singlet, triplet, casscf.ncas, casscf.nelecas)
            components[i, j] = 0.5 * np.einsum("xab,ba->x", operator, up - down)
    energies = np.asarray(casscf.e_states)
    return SpinOrbitCoupling(energies[:n_singlets], energies[n_singlets:], components)


def effective_charge(atomic_number: int) -> float:
    """Return the effective nuclear charge, with screening, in the spin-orbit operator, e.

    Notes
    -----
    See `spin_orbit_coupling`. Noble gases continue the row; hydrogen and helium are not screened.
    """
    if atomic_number <= 2:
        return float(atomic_number)
    if atomic_number <= 10:
        return (0.40 + 0.05 * (atomic_number - 2)) * atomic_number
    return (0.925 - 0.0125 * (atomic_number - 10)) * atomic_number


def _operator(molecule: Any) -> FloatArray:
    """Return sum_A Z_A* (r_A x p)/r_A^3 / (2 c^2) in atomic orbitals, without i: (3, n_ao, n_ao), antisymmetric."""
    n = molecule.nao
    found = np.zeros((3, n, n))
    for atom, charge in enumerate(molecule.atom_charges()):
        with molecule.with_rinv_at_nucleus(atom):
            found += effective_charge(int(charge)) * molecule.intor("int1e_prinvxp", comp=3)
    return found / (2.0 * SPEED_OF_LIGHT**2)


def _averaged(mean_field: Any, settings: CASSCF, n_singlets: int, n_triplets: int, term: str) -> Any:
    """Return a converged CASSCF: singlets, then triplets, all with equal numbers of electrons of both spins."""
    pairs = settings.n_electrons // 2
    casscf = mcscf.CASSCF(mean_field, settings.n_orbitals, (pairs, pairs))
    casscf.verbose = 0
    casscf.conv_tol_grad = settings.conv_tol
    casscf.max_cycle_macro = settings.max_cycle
    casscf.ah_lindep = INDEPENDENT
    solvers = []
    for count, multiplicity in ((n_singlets, 1), (n_triplets, 3)):
        solver = full_ci(
            *(mean_field.mol, settings.n_orbitals, (pairs, pairs), multiplicity), FINEST_VECTORS, settings.max_cycle
        )
        solver.spin = 0
        solver.nroots = count
        solvers.append(solver)
    weights = [1.0 / (n_singlets + n_triplets)] * (n_singlets + n_triplets)
    casscf = mcscf.state_average_mix(casscf, solvers, weights)
    casscf.kernel(starting_orbitals(mean_field, casscf, settings, term))
    if not casscf.converged:
        raise ConvergenceError(
            f"{term}: CASSCF of {n_singlets} singlets and {n_triplets} triplets did not converge; choose other active "
            "orbitals or another number of states, such as all that are close in energy"
        )
    expected = [0.0] * n_singlets + [2.0] * n_triplets
    squares = [fci.spin_op.spin_square(vector, casscf.ncas, casscf.nelecas)[0] for vector in casscf.ci]
    if abs(np.array(squares) - expected).max() > SPIN_ERROR:
        raise ConvergenceError(
            f"{term}: <S2> of the states is {listed(f'{s:.3f}' for s in squares)} instead of "
            f"{listed(f'{s:.0f}' for s in expected)}; ask for fewer states"
        )
    return casscf
