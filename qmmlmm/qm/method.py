"""Names of electronic-structure methods: Hartree-Fock and the density functionals of libxc."""

from __future__ import annotations

import importlib.util
import re

import numpy as np
from pyscf.dft import libxc

from qmmlmm.errors import MissingDependencyError, PotentialError, nearest

HARTREE_FOCK = "hf"


def is_hartree_fock(method: str) -> bool:
    """Return whether the method is Hartree-Fock, and not a density functional."""
    return method.strip().lower() == HARTREE_FOCK


def has_exact_exchange(method: str) -> bool:
    """Return whether the energy contains exact exchange."""
    return is_hartree_fock(method) or bool(libxc.is_hybrid_xc(_without_dispersion(method)))


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
    if _without_dispersion(method) != method and importlib.util.find_spec("pyscf.dispersion") is None:
        raise MissingDependencyError(
            f"method {method!r} asks for a dispersion correction, which needs the package pyscf-dispersion; "
            f"install it, or use {_without_dispersion(method)!r}"
        )
    functional = _without_dispersion(method)
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
    functional = _without_dispersion(method)
    if libxc.is_nlc(functional):
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


def _without_dispersion(method: str) -> str:
    return re.sub(r"-d[34](bj|zero|bjm|zerom|op|s|2b|bj2b)*$", "", method.strip(), flags=re.IGNORECASE)


def _functional_names() -> list[str]:
    aliases = [str(name) for name in libxc.XC_ALIAS]
    codes = [re.sub(r"^(HYB_)?(LDA|GGA|MGGA)_XC_", "", str(name)) for name in libxc.XC_CODES]
    return sorted({name.lower() for name in aliases + codes})
