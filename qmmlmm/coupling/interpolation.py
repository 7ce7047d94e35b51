"""The straight way from one Hamiltonian to another, by a global parameter."""

from __future__ import annotations

from dataclasses import replace

from qmmlmm.coupling.hamiltonian import Hamiltonian, Term
from qmmlmm.errors import HamiltonianError, listed
from qmmlmm.setting_checks import check_instance, check_text


def interpolated_hamiltonian(lower: Hamiltonian, upper: Hamiltonian, parameter: str) -> Hamiltonian:
    """Return (1-lambda) times one Hamiltonian plus lambda times another one.

    Parameters
    ----------
    lower, upper : Hamiltonian
        Hamiltonians on the same outermost regions, whose coefficients are numbers.
    parameter : str
        Name of lambda. Its initial value is zero.

    Raises
    ------
    HamiltonianError
        If the two have parameters, or differ in the outermost regions or in their charges.

    Notes
    -----
    The energy is linear in lambda, so that its derivative at any lambda gives the energies of both ends.
    """
    check_text("parameter", parameter, HamiltonianError)
    for name, hamiltonian in (("lower", lower), ("upper", upper)):
        check_instance(name, hamiltonian, Hamiltonian, error=HamiltonianError)
        if hamiltonian.parameters:
            raise HamiltonianError(
                f"the {name} level has the parameters {listed(hamiltonian.parameters)}, and the way between the levels "
                "has only its own parameter; write the values of these as numbers in the coefficients"
            )
    ends = [{region.atoms: region for region in hamiltonian.outermost} for hamiltonian in (lower, upper)]
    if set(ends[0]) != set(ends[1]):
        names = [listed(region.name for region in end.values()) for end in ends]
        raise HamiltonianError(
            f"the levels have different outermost regions, lower {names[0]} and upper {names[1]}; both levels treat "
            "the same atoms, and a level that treats fewer is a core inside them"
        )
    for atoms, first in ends[0].items():
        second = ends[1][atoms]
        if first.charge != second.charge:
            raise HamiltonianError(
                f"the net charge changes between the levels: region {first.name!r} has the charge {first.charge} in "
                f"the lower and {second.charge} in the upper one; levels of one molecule have one charge"
            )
    terms = [_scaled(term, f"1-{parameter}") for term in lower.terms]
    terms += [_scaled(term, parameter) for term in upper.terms]
    return Hamiltonian(terms, parameters={parameter: 0.0})


def _scaled(term: Term, weight: str) -> Term:
    """Return a term whose coefficient is multiplied by lambda, or by one minus lambda."""
    factor = term.weight.constant
    if weight.startswith("1-"):
        text = f"{factor!r}{-factor:+}*{weight[2:]}"
    else:
        text = f"{factor!r}*{weight}"
    # The two ends may use one name for their terms, and one force group.
    return replace(term, coefficient=text, name=None, force_group=None)
