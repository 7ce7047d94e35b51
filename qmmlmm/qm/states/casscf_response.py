"""Gradients and relaxed densities of state-averaged CASSCF, and derivative couplings."""

from __future__ import annotations

from typing import Any

import numpy as np
from pyscf.fci import direct_spin1
from pyscf.grad import casscf as gradient_module
from pyscf.grad import sacasscf as state_module
from pyscf.nac import sacasscf as coupling_module

from qmmlmm.errors import ConvergenceError
from qmmlmm.qm.states.derivative_integrals import DerivativeIntegrals
from qmmlmm.qm.states.electronic_state import ElectronicState
from qmmlmm.units import FloatArray

RESPONSE_TOLERANCE = 1e-9
RESPONSE_CYCLES = 200


def casscf_state(casscf: Any, index: int, term: str, integrals: DerivativeIntegrals | None = None) -> ElectronicState:
    """Return energy, gradient and relaxed density of one state.

    Parameters
    ----------
    casscf : pyscf.mcscf.CASSCF
        Converged state-averaged CASSCF.
    index : int
    term : str
        Name of the term, for messages.
    integrals : DerivativeIntegrals, optional
        Integrals of its molecule, shared by gradients and couplings of one geometry.

    Notes
    -----
    The orbitals minimise the mean energy of all states, so that the energy of one state needs a Lagrangian for orbitals
    and amplitudes: Stalring, Bernhardsson and Lindh, Mol. Phys. 99, 103 (2001). Its relaxed density is that of the
    state plus the responses of both.

    Raises
    ------
    ConvergenceError
        If the Lagrange multipliers do not converge.
    """
    method = _StateGradient(casscf)
    gradient = _solved(method, casscf, index, f"{term}: the response of the orbitals to state {index}", integrals)
    active = direct_spin1.make_rdm1(casscf.ci[index], casscf.ncas, casscf.nelecas)
    density = _in_basis(casscf, active) + 2.0 * _core(casscf) + _response(method, casscf)
    return ElectronicState(float(casscf.e_states[index]), gradient, density)


def casscf_coupling(
    casscf: Any,
    bra: int,
    ket: int,
    term: str,
    integrals: DerivativeIntegrals | None = None,
    *,
    whole: bool = False,
) -> ElectronicState:
    """Return the derivative coupling between two states, times their energy difference, in the form of a gradient.

    Parameters
    ----------
    casscf : pyscf.mcscf.CASSCF
        Converged state-averaged CASSCF.
    bra, ket : int
    term : str
        Name of the term, for messages.
    integrals : DerivativeIntegrals, optional
        As for `casscf_state`.
    whole : bool
        Whether to include the part of the moving basis functions, which is not the derivative of an energy.

    Returns
    -------
    ElectronicState
        State with the energy E(ket) - E(bra) and the gradient <bra | gradient ket> times that, without the derivative
        of the external field's operator, which follows from the density (a relaxed transition density).

    Notes
    -----
    Without the part of the moving basis functions a hop along the coupling keeps the total momentum: Fatehi and
    Subotnik, J. Phys. Chem. Lett. 3, 2039 (2012). PySCF 2.14 divides by E(bra) - E(ket), so that the sign of its
    couplings is opposite to its documentation, as overlaps of finite displacements show.
    """
    method = _Coupling(casscf, state=(ket, bra), mult_ediff=True, use_etfs=not whole)
    what = f"{term}: the response of the orbitals to the coupling of states {bra} and {ket}"
    gradient = _solved(method, casscf, (ket, bra), what, integrals)
    transition = direct_spin1.trans_rdm1(casscf.ci[bra], casscf.ci[ket], casscf.ncas, casscf.nelecas)
    density = _in_basis(casscf, 0.5 * (transition + transition.T)) + _response(method, casscf)
    difference = float(casscf.e_states[ket] - casscf.e_states[bra])
    return ElectronicState(difference, gradient, density)


def transition_moments(casscf: Any) -> tuple[FloatArray, FloatArray]:
    """Return the transition dipoles from state 0, (m, 3) e bohr, and the oscillator strengths, (m,)."""
    integrals = casscf.mol.intor_symmetric("int1e_r", comp=3)
    dipoles = np.zeros((len(casscf.ci), 3))
    for index in range(1, len(casscf.ci)):
        transition = direct_spin1.trans_rdm1(casscf.ci[0], casscf.ci[index], casscf.ncas, casscf.nelecas)
        dipoles[index] = -np.einsum("xpq,pq->x", integrals, _in_basis(casscf, transition))
    excitations = np.asarray(casscf.e_states) - casscf.e_states[0]
    return dipoles, 2.0 / 3.0 * excitations * (dipoles**2).sum(axis=1)


class _StateGradient(state_module.Gradients):
    """PySCF's gradient of one state, with stored derivative integrals in the Hellmann-Feynman part.

    PySCF 2.14 does not pass `mf_grad` on to this part and computes all of them again.
    """

    def get_ham_response(
        self, state: int, atmlst: Any, verbose: Any, mo: Any, ci: Any, mf_grad: Any, **others: Any
    ) -> FloatArray:
        del others  # PySCF's: integrals and settings of the Lagrange multipliers
        inner = _explicit_gradient(self.make_fcasscf(state), mf_grad)
        return np.asarray(inner.kernel(mo_coeff=mo, ci=ci[state], atmlst=atmlst, verbose=verbose))


class _Coupling(coupling_module.NonAdiabaticCouplings):
    """PySCF's coupling of two states, with stored derivative integrals in the Hellmann-Feynman part."""

    def get_ham_response(
        self,
        state: tuple[int, int],
        atmlst: Any,
        verbose: Any,
        mo: Any,
        ci: Any,
        eris: Any,
        mf_grad: Any,
        **others: Any,
    ) -> FloatArray:
        del others
        inner = _explicit_gradient(self.make_fcasscf_nacs(state), mf_grad)
        coupling = coupling_module.grad_elec_active(
            inner, mo_coeff=mo, ci=ci[state[0]], atmlst=atmlst, eris=eris, mf_grad=mf_grad, verbose=verbose
        )
        if not self.use_etfs:
            coupling = coupling + self.nac_csf(mo_coeff=mo, ci=ci, state=state, mf_grad=mf_grad, atmlst=atmlst)
        return np.asarray(coupling)


def _explicit_gradient(casscf: Any, mf_grad: Any) -> Any:
    """Return PySCF's gradient at fixed orbitals and amplitudes, with the repulsion from `mf_grad`."""
    inner = gradient_module.Gradients(casscf)
    inner.get_jk = mf_grad.get_jk
    inner._finalize = lambda: None
    return inner


def _solved(method: Any, casscf: Any, state: Any, what: str, integrals: DerivativeIntegrals | None) -> FloatArray:
    """Return the gradient, or raise if the Lagrange multipliers are not converged."""
    method.verbose = 0
    method.conv_rtol = RESPONSE_TOLERANCE
    method.max_cycle = RESPONSE_CYCLES
    # PySCF's callback computes the residual again in every iteration, only for messages.
    method.get_lagrange_callback = lambda *_: None
    integrals = DerivativeIntegrals(casscf.mol) if integrals is None else integrals
    with integrals.serving(casscf._scf.nuc_grad_method()) as mean_field:
        gradient = np.asarray(method.kernel(state=state, mf_grad=mean_field))
    if not method._conv:
        raise ConvergenceError(f"{what} did not converge; check the geometry, or tighten conv_tol of CASSCF")
    return gradient


def _core(casscf: Any) -> FloatArray:
    core = casscf.mo_coeff[:, : casscf.ncore]
    return np.asarray(core @ core.T)


def _active(casscf: Any) -> FloatArray:
    return np.asarray(casscf.mo_coeff[:, casscf.ncore : casscf.ncore + casscf.ncas])


def _in_basis(casscf: Any, density: FloatArray) -> FloatArray:
    active = _active(casscf)
    return np.asarray(active @ density @ active.T)


def _response(method: Any, casscf: Any) -> FloatArray:
    """Return the part of the density from the Lagrange multipliers."""
    orbital, vectors = method.unpack_uniq_var(method.Lvec)
    turned = casscf.mo_coeff @ orbital
    mean = casscf.fcisolver.make_rdm1(casscf.ci, casscf.ncas, casscf.nelecas)
    ncore, end = casscf.ncore, casscf.ncore + casscf.ncas
    of_orbitals = 2.0 * turned[:, :ncore] @ casscf.mo_coeff[:, :ncore].T
    of_orbitals = of_orbitals + turned[:, ncore:end] @ mean @ _active(casscf).T
    amplitudes, _ = casscf.fcisolver.trans_rdm12(vectors, casscf.ci, casscf.ncas, casscf.nelecas)
    of_vectors = _in_basis(casscf, amplitudes)
    return np.asarray(of_orbitals + of_orbitals.T + of_vectors + of_vectors.T)
