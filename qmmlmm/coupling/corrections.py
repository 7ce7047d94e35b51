"""Learned corrections of a Hamiltonian: each is added to the level that it is a difference to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from qmmlmm.coupling.coefficient import Coefficient
from qmmlmm.coupling.level_of_theory import Difference, LevelOfTheory
from qmmlmm.coupling.potential import RegionPotential
from qmmlmm.errors import HamiltonianError, listed

TOLERANCE = 1e-9


def check_kind(potential: RegionPotential, correction: bool) -> None:
    """Raise HamiltonianError if a difference is used as the energy of a level, or such an energy as a difference.

    Parameters
    ----------
    potential : RegionPotential
    correction : bool
        Whether the term is a correction.
    """
    difference, level = potential.difference, potential.level
    if difference is not None and not correction:
        raise HamiltonianError(
            f"this {level} potential is the difference {difference} and no energy of a region by itself; write "
            f"Term(..., correction=True) beside a term of {difference.base}"
        )
    if difference is None and correction:
        raise HamiltonianError(
            f"correction=True is for a difference between two levels, such as 'qmmlmm train --base' learns; this "
            f"{level} potential has the full energy of {potential.method_name}. Leave correction out; a correction by "
            "two full potentials, such as QM - ML, is two terms with the coefficients 1 and -1"
        )


def check_corrections(
    region: str,
    corrections: Sequence[tuple[Difference, Coefficient]],
    levels: Sequence[tuple[LevelOfTheory, Coefficient]],
) -> None:
    """Raise HamiltonianError unless each correction of a region has its base beside it, with a weight of at least its.

    Parameters
    ----------
    region : str
        Name of the region.
    corrections : sequence of (Difference, Coefficient)
    levels : sequence of (LevelOfTheory, Coefficient)
        All other terms of the region.

    Notes
    -----
    A correction with the coefficient d turns this much of its base, of the coefficient b, into its target: the weights
    of base and target are b - d and d. Both have the sign of b, at all values of parameters between zero and one. So
    corrections to one base may be averaged, switched on by a parameter, and subtracted with their base.
    """
    for base in dict.fromkeys(difference.base for difference, _ in corrections):
        mine = [(difference, weight) for difference, weight in corrections if difference.base == base]
        below = [weight for level, weight in levels if level == base]
        if not below:
            found = [f"{level} ({', '.join(base.differences_to(level))})" for level, _ in levels]
            raise HamiltonianError(
                f"region {region!r} has a correction that is the difference {mine[0][0]}, and no term of its base "
                f"{base}; it has {listed(found) if found else 'no other term'}. Add a term of {base} with the settings "
                "of the training"
            )
        b, d = _sum(below), _sum(weight for _, weight in mine)
        if not _goes_together(b, d):
            raise HamiltonianError(
                f"region {region!r}: the coefficients of the corrections to {base} add up to {_text(d)}, those of "
                f"{base} to {_text(b)}. A correction acts on as much of its base as there is, with the same sign: "
                "several corrections to one base are averaged, such as 0.5 and 0.5, and a base is subtracted together "
                "with its correction"
            )


def _sum(weights: Iterable[Coefficient]) -> Coefficient:
    constant, slopes = 0.0, dict[str, float]()
    for weight in weights:
        constant += weight.constant
        for name, factor in weight.slopes:
            slopes[name] = slopes.get(name, 0.0) + factor
    return Coefficient(constant, tuple(sorted(slopes.items())))


def _goes_together(b: Coefficient, d: Coefficient) -> bool:
    """Return whether d lies between zero and b at all values of the parameters between zero and one."""
    names = sorted({*b.parameters, *d.parameters})
    of_b, of_d = dict(b.slopes), dict(d.slopes)
    base = [b.constant, *(of_b.get(name, 0.0) for name in names)]
    moved = [d.constant, *(of_d.get(name, 0.0) for name in names)]
    rest = [x - y for x, y in zip(base, moved, strict=True)]
    if any(all(abs(value) <= TOLERANCE for value in values) for values in (moved, rest)):
        return True
    return any(
        all(_lowest([sign * value for value in values]) >= -TOLERANCE for values in (base, moved, rest))
        for sign in (1.0, -1.0)
    )


def _lowest(values: list[float]) -> float:
    """Return the smallest value of a constant, the first, plus parameters between zero and one with factors."""
    return values[0] + sum(min(0.0, factor) for factor in values[1:])


def _text(coefficient: Coefficient) -> str:
    parts = [f"{coefficient.constant:g}"] if coefficient.constant or not coefficient.slopes else []
    parts += [f"{factor:+g}*{name}" for name, factor in coefficient.slopes if factor]
    return " ".join(parts) or "0"
