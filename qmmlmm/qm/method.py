"""Names of electronic-structure methods: Hartree-Fock and the density functionals of libxc."""

from __future__ import annotations

import functools
import importlib.util
import re
import warnings
from dataclasses import dataclass

import numpy as np
from pyscf import gto
from pyscf.dft import libxc
from pyscf.scf.dispersion import DISP_VERSIONS, parse_dft, parse_disp

from qmmlmm.errors import MissingDependencyError, PotentialError, QmmlmmWarning, listed, nearest

HARTREE_FOCK = "hf"

_NAMES_DISPERSION = re.compile(r"(_D3?|XD3?|_3C|VDW|CF22D)$")
"""Ends of libxc's names of functionals that were made for a dispersion correction, which libxc does not compute."""


@dataclass(frozen=True)
class ParsedMethod:
    """The parts of a method's name, as PySCF reads it.

    Parameters
    ----------
    functional : str
        Name of the functional in libxc, or ``"hf"``.
    nonlocal_correlation : bool
        Whether non-local correlation (VV10) of the functional is computed.
    dispersion : str or None
        Version of the dispersion correction, such as ``"d3bj"``; None without one.
    parameters : str or None
        Name of the dispersion correction's parameters.
    three_body : bool
        Whether the correction has its three-body part.
    """

    functional: str
    nonlocal_correlation: bool
    dispersion: str | None
    parameters: str | None
    three_body: bool


@functools.lru_cache(128)
def parse_method(method: str) -> ParsedMethod:
    """Return the parts of a method's name.

    Raises
    ------
    PotentialError
        If PySCF does not compute the method.
    """
    name = method.strip().lower()
    try:
        with warnings.catch_warnings(record=True) as given:
            warnings.simplefilter("always")
            functional, nonlocal_correlation, _ = parse_dft(name)
            parameters, version, three_body = parse_disp(name)
    except (NotImplementedError, ValueError) as error:
        raise PotentialError(
            f"PySCF does not compute the method {method!r}: {error} Dispersion corrections are "
            f"{', '.join(DISP_VERSIONS)}, such as 'b3lyp-d3bj'"
        ) from error
    if given:
        warnings.warn(
            f"method {method!r}: other programs may mean another functional by this name; this PySCF computes "
            f"{functional!r} with the correction {version}:{parameters}",
            QmmlmmWarning,
            stacklevel=5,
        )
    # PySCF writes '' for the functional's own choice, and False for none.
    return ParsedMethod(str(functional), nonlocal_correlation is not False, version, parameters, bool(three_body))


def is_hartree_fock(method: str) -> bool:
    """Return whether the method is Hartree-Fock, and not a density functional."""
    return method.strip().lower() == HARTREE_FOCK


def has_exact_exchange(method: str) -> bool:
    """Return whether the energy contains exact exchange."""
    return is_hartree_fock(method) or bool(libxc.is_hybrid_xc(parse_method(method).functional))


def check_method(method: str) -> None:
    """Raise if the method is unknown or has no correct energy and gradient.

    Parameters
    ----------
    method : str
        ``"hf"`` or the name of a density functional.

    Raises
    ------
    PotentialError
        If the name is unknown, or the functional has no energy with a first derivative for a self-consistent
        calculation.
    MissingDependencyError
        If the name has a dispersion correction and ``pyscf-dispersion`` is not installed.
    """
    if not isinstance(method, str) or not method.strip():
        raise PotentialError(f"method is 'hf' or the name of a density functional such as 'b3lyp', got {method!r}")
    if is_hartree_fock(method):
        return
    if re.search(r"(^|_)K_", method.upper()):
        raise PotentialError(
            f"{method!r} is a kinetic-energy functional; choose an exchange-correlation functional such as "
            "'pbe' or 'b3lyp'"
        )
    parsed = parse_method(method)
    functional = parsed.functional
    if parsed.dispersion is not None and importlib.util.find_spec("pyscf.dispersion") is None:
        raise MissingDependencyError(
            f"method {method!r} asks for a dispersion correction, which needs the package pyscf-dispersion; "
            f"install it, or use {functional!r}"
        )
    try:
        _, parts = libxc.parse_xc(functional)
    except (KeyError, ValueError, IndexError) as error:
        names = [HARTREE_FOCK, *_functional_names()]
        raise PotentialError(
            f"unknown method {method!r}: not 'hf' and not a density functional that PySCF's libxc knows."
            f"{nearest(method, names)} Post-Hartree-Fock methods and double hybrids are not offered."
        ) from error
    if any(libxc.needs_laplacian(number) for number, _ in parts):
        raise PotentialError(
            f"functional {method!r} depends on the Laplacian of the density, for which PySCF has no "
            "gradient; 'r2scan' and 'b97m-v' are meta-GGAs that do not"
        )
    if not parts and not has_exact_exchange(functional):
        raise PotentialError(f"functional {method!r} has neither exchange nor correlation")
    _check_dispersion(method, parsed, {int(number) for number, _ in parts})
    _check_values(method, functional)


def check_response(method: str) -> None:
    """Raise PotentialError if excited states of a functional have no correct gradient.

    Parameters
    ----------
    method : str
        Method that `check_method` accepts.
    """
    if is_hartree_fock(method):
        return
    parsed = parse_method(method)
    functional = parsed.functional
    if parsed.nonlocal_correlation and libxc.is_nlc(functional):
        raise PotentialError(
            f"functional {method!r} has non-local correlation, whose response is in no gradient of excited states; "
            "choose one without, such as 'wb97x', 'cam-b3lyp' or 'pbe0'"
        )
    try:
        libxc.test_deriv_order(functional, 3, raise_error=True)
    except (NotImplementedError, ValueError, RuntimeError) as error:
        raise PotentialError(
            f"functional {method!r} has no third derivative in libxc, which the gradient of excited states needs "
            f"({error}); choose another one, such as 'pbe0' or 'b3lyp'"
        ) from error


def _check_values(method: str, functional: str) -> None:
    """Raise if libxc gives no finite energy and potential at ordinary densities."""
    density = np.array([1e-3, 0.1, 1.0])
    rows = {"LDA": 1, "GGA": 4, "MGGA": 5}.get(libxc.xc_type(functional), 1)
    rho = np.zeros((rows, 3))
    rho[0] = density
    if rows > 1:
        rho[1] = 0.5 * density
    if rows > 4:
        rho[4] = 0.3 * density ** (5.0 / 3.0)
    try:
        values = libxc.eval_xc_eff(functional, rho, deriv=1)
    except (KeyError, NotImplementedError, RuntimeError, ValueError) as error:
        raise PotentialError(
            f"functional {method!r} has no energy with a first derivative in libxc ({error}); "
            "choose one that has, such as 'pbe' or 'b3lyp'"
        ) from error
    if any(value is None or not np.all(np.isfinite(value)) for value in values[:2]):
        raise PotentialError(
            f"functional {method!r} gives no finite energy and potential at ordinary densities; "
            "choose another one, such as 'pbe' or 'b3lyp'"
        )


def _check_dispersion(method: str, parsed: ParsedMethod, numbers: set[int]) -> None:
    """Raise PotentialError if the correction has no parameters, or the functional lacks the one that it is made for."""
    made_for = sorted(
        name
        for name, number in libxc.XC_CODES.items()
        if not isinstance(number, str) and int(number) in numbers and _NAMES_DISPERSION.search(name)
    )
    if made_for and (parsed.dispersion is None or any(name.endswith("_3C") for name in made_for)):
        raise PotentialError(
            f"the functional {method!r} ({made_for[0]} in libxc) is made for a dispersion correction, which PySCF "
            "leaves out under this name; choose one whose correction PySCF computes, such as 'wb97x-d3bj', 'wb97m-v' "
            "or 'b3lyp-d3bj'"
        )
    if parsed.dispersion is None:
        return
    if parsed.dispersion not in DISP_VERSIONS:
        raise PotentialError(
            f"method {method!r} has the unknown dispersion correction {parsed.dispersion!r}; PySCF computes "
            f"{', '.join(DISP_VERSIONS)}.{nearest(parsed.dispersion, DISP_VERSIONS)}"
        )
    from pyscf.dispersion import dftd3, dftd4

    hydrogen = gto.M(atom="H 0 0 0; H 0 0 0.74", verbose=0)
    try:
        if parsed.dispersion == "d4":
            dftd4.DFTD4Dispersion(hydrogen, xc=parsed.parameters, atm=parsed.three_body)
        else:
            dftd3.DFTD3Dispersion(hydrogen, xc=parsed.parameters, version=parsed.dispersion, atm=parsed.three_body)
    except RuntimeError as error:
        raise PotentialError(
            f"method {method!r}: the dispersion correction {parsed.dispersion} has no parameters for "
            f"{parsed.parameters!r} ({error}); choose another version of {listed(DISP_VERSIONS, 9)}, or another "
            "functional"
        ) from error


def _functional_names() -> list[str]:
    aliases = [str(name) for name in libxc.XC_ALIAS]
    codes = [re.sub(r"^(HYB_)?(LDA|GGA|MGGA)_XC_", "", str(name)) for name in libxc.XC_CODES]
    return sorted({name.lower() for name in aliases + codes})
