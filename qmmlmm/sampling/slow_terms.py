"""The slow terms of multiple time stepping, and those that are multiples of a fast one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from qmmlmm.coupling.hamiltonian import Hamiltonian, Term
from qmmlmm.errors import HamiltonianError, listed
from qmmlmm.mm.mixed_system import MixedSystem


def correction_terms(hamiltonian: Hamiltonian) -> tuple[str, ...]:
    """Return the names of the terms that correct others: QM and -ML of a region with ML + QM - ML, or with QM - ML.

    These are the terms with a negative coefficient, and those of the same region with another potential.

    Raises
    ------
    HamiltonianError
        If there is no correction, or no term that it corrects.
    """
    named = list(zip(hamiltonian.term_names(), hamiltonian.terms, strict=True))
    slow: list[str] = []
    for region in hamiltonian.regions:
        in_region = [(name, term) for name, term in named if term.region == region]
        subtracted = {id(term.potential) for _, term in in_region if _is_subtracted(term)}
        if not subtracted:
            continue
        found = [name for name, term in in_region if _is_subtracted(term) or id(term.potential) not in subtracted]
        if region in hamiltonian.outermost and len(found) == len(in_region):
            raise HamiltonianError(
                f"region {region.name!r} would have no fast term: the potential with coefficient -1 is the same object "
                "as that with coefficient +1, load a model once and use it in both terms"
            )
        slow += found
    if not slow:
        raise HamiltonianError(
            "this Hamiltonian has no correction that could be slow: write ML + QM - ML of one region, or QM - ML of a "
            'region inside another, or name the slow terms, for example slow=["ligand/QM"]'
        )
    return tuple(slow)


def named_terms(mixed: MixedSystem, names: Iterable[str]) -> tuple[str, ...]:
    """Return names of slow terms as a tuple.

    Raises
    ------
    HamiltonianError
        If there is no term of a name, or no name.
    """
    if not isinstance(names, str) and (isinstance(names, Mapping) or not isinstance(names, Iterable)):
        raise HamiltonianError(f"slow is a list of names of terms, got {names!r}; terms are: {listed(mixed.terms, 10)}")
    given: Sequence[str] = [names] if isinstance(names, str) else list(names)
    for name in given:
        mixed.term(name)
    if not given:
        raise HamiltonianError(f"name at least one slow term of {listed(mixed.terms, 10)}")
    return tuple(given)


def fast_multiples(mixed: MixedSystem, slow: Iterable[str]) -> dict[str, tuple[str, float]]:
    """Return, for each slow term that is a multiple of a fast one, the name of the fast term and the factor.

    Both have a separate force group.
    """
    names = list(slow)
    groups = [force.getForceGroup() for force in mixed.system.getForces()]
    single = [name for name in mixed.terms if groups.count(mixed.force_group(name)) == 1]
    found: dict[str, tuple[str, float]] = {}
    for name in names:
        taken = {fast for fast, _ in found.values()}
        for fast in single:
            if name not in single or fast in names or fast in taken or name in found:
                continue
            factor = multiple_of(mixed, name, fast)
            if factor is not None:
                found[name] = fast, factor
    return found


def multiple_of(mixed: MixedSystem, name: str, other: str) -> float | None:
    """Return the factor between a term and another one, or None if it is no multiple at all geometries."""
    first, second = mixed.terms[name].term, mixed.terms[other].term
    if first.potential is not second.potential or first.weight.parameters or second.weight.parameters:
        return None
    if replace(first, coefficient=1.0, force_group=None, name=None) != replace(
        second, coefficient=1.0, force_group=None, name=None
    ):
        return None
    divisor = second.weight.value({})
    return first.weight.value({}) / divisor if divisor else None


def _is_subtracted(term: Term) -> bool:
    """Return whether a coefficient is negative, for parameters between zero and one."""
    return term.weight.value(dict.fromkeys(term.weight.parameters, 0.5)) < 0
