"""Coefficients of terms: numbers, or sums of global parameters such as ``1-lambda_qm``."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from qmmlmm.errors import HamiltonianError, shown
from qmmlmm.setting_checks import as_float, is_number

_NUMBER = r"(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_NAME = r"[A-Za-z_]\w*"
_SUMMAND = re.compile(rf"\s*([+-]?)\s*(?:({_NUMBER})\s*(?:\*\s*({_NAME}))?|({_NAME}))\s*", re.ASCII)


@dataclass(frozen=True)
class Coefficient:
    """A constant plus a sum of global parameters of a Context, each times a factor.

    Parameters
    ----------
    constant : float
    slopes : tuple of (str, float)
        Name and factor of each parameter, sorted by name.
    """

    constant: float
    slopes: tuple[tuple[str, float], ...] = ()

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the parameters."""
        return tuple(name for name, _ in self.slopes)

    def value(self, parameters: Mapping[str, float]) -> float:
        """Return the coefficient for values of the parameters."""
        return self.constant + sum(factor * parameters[name] for name, factor in self.slopes)


def parse_coefficient(given: float | str) -> Coefficient:
    """Return the coefficient of a number or of a text such as ``"lambda_ml - 0.5*lambda_qm"``.

    Parameters
    ----------
    given : float or str
        A number, or a sum of numbers and parameters with or without factors.

    Raises
    ------
    HamiltonianError
        If it is neither, not finite, or zero.
    """
    if isinstance(given, str):
        return _parse_text(given)
    if not is_number(given):
        raise HamiltonianError(
            f"the coefficient of a term is a number, or a sum of parameters such as '1-lambda_qm', got {shown(given)}"
        )
    if not math.isfinite(as_float(given)) or given == 0.0:
        raise HamiltonianError(
            f"the coefficient of a term is finite and not zero, got {shown(given)}; leave the term out instead"
        )
    return Coefficient(float(given))


def _parse_text(text: str) -> Coefficient:
    constant, slopes = 0.0, dict[str, float]()
    position = 0
    while position < len(text) or position == 0:
        match = _SUMMAND.match(text, position)
        if match is None or (position > 0 and not match[1]):
            raise HamiltonianError(
                f"the coefficient {text!r} cannot be read from {text[position:]!r}; it is a sum of numbers and global "
                "parameters with factors, such as '1-lambda_qm' or '0.5*lambda_ml'"
            )
        sign, number, scaled, bare = match.groups()
        value = (-1.0 if sign == "-" else 1.0) * (float(number) if number else 1.0)
        name = scaled or bare
        if name:
            slopes[name] = slopes.get(name, 0.0) + value
        else:
            constant += value
        position = match.end()
    if not all(math.isfinite(value) for value in (constant, *slopes.values())):
        raise HamiltonianError(f"the coefficient {text!r} has a number that is not finite")
    kept = tuple(sorted((name, value) for name, value in slopes.items() if value != 0.0))
    if not kept:
        return parse_coefficient(constant)
    return Coefficient(constant, kept)
