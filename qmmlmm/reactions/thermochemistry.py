"""Zero-point and thermal corrections of vibrations, and rates of reactions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from openmm import unit

from qmmlmm.errors import SettingError
from qmmlmm.html_tables import html_table
from qmmlmm.setting_checks import check_array, check_flag, check_quantity
from qmmlmm.units import (
    AVOGADRO,
    GAS_CONSTANT,
    HARTREE_IN_KJ_PER_MOL,
    HARTREE_IN_PER_CM,
    LIGHT_IN_CM_PER_SECOND,
    PLANCK_IN_JOULE_SECOND,
    FloatArray,
    Scalar,
)

LOW = 100.0
"""Wave number, 1/cm, at which the entropy of a mode is half that of a vibration and half that of a rotation."""

AVERAGE_INERTIA = 1e-44
"""Grimme's average moment of inertia, kg m^2."""

BOLTZMANN_IN_JOULE = GAS_CONSTANT * 1e3 / AVOGADRO
KJ_PER_MOL_OF_PER_CM = HARTREE_IN_KJ_PER_MOL / HARTREE_IN_PER_CM


@dataclass(frozen=True)
class Thermochemistry:
    """Corrections of a potential energy for the vibrations of a region.

    Parameters
    ----------
    temperature : Quantity, K
    zero_point_energy : Quantity, kJ/mol
    thermal_energy : Quantity, kJ/mol
        Zero-point energy and energy of thermal excitation.
    entropy : Quantity, kJ/(mol K)
    free_energy : Quantity, kJ/mol
        Thermal energy minus temperature times entropy: the correction of a potential energy to a free energy.
    n_modes : int
        Number of modes that count.
    n_left_out : int
        Number of modes with negative wave number, which do not count.
    n_low : int
        Number of counted modes below 100 1/cm, whose entropy is mostly that of a rotation.
    """

    temperature: unit.Quantity
    zero_point_energy: unit.Quantity
    thermal_energy: unit.Quantity
    entropy: unit.Quantity
    free_energy: unit.Quantity
    n_modes: int
    n_left_out: int
    n_low: int

    def _repr_html_(self) -> str:
        """Return a table, which notebooks show."""
        energy = unit.kilojoule_per_mole
        rows = [
            ("temperature (K)", f"{self.temperature._value:.2f}"),
            ("modes", f"{self.n_modes}, {self.n_low} below {LOW:.0f} 1/cm, {self.n_left_out} negative left out"),
            ("zero-point energy (kJ/mol)", f"{self.zero_point_energy.value_in_unit(energy):.2f}"),
            ("thermal energy (kJ/mol)", f"{self.thermal_energy.value_in_unit(energy):.2f}"),
            ("entropy (J/(mol K))", f"{1000.0 * self.entropy.value_in_unit(energy / unit.kelvin):.2f}"),
            ("free energy (kJ/mol)", f"{self.free_energy.value_in_unit(energy):.2f}"),
        ]
        return html_table(("", ""), rows)

    def __str__(self) -> str:
        energy = unit.kilojoule_per_mole
        return (
            f"{self.n_modes} modes at {self.temperature._value:.2f} K ({self.n_low} below {LOW:.0f} 1/cm, "
            f"{self.n_left_out} negative left out): zero-point energy "
            f"{self.zero_point_energy.value_in_unit(energy):.2f} kJ/mol, free energy of vibration "
            f"{self.free_energy.value_in_unit(energy):.2f} kJ/mol"
        )


def vibrational_thermochemistry(
    wave_numbers: Sequence[float] | FloatArray, temperature: Scalar = 298.15, *, quasi_harmonic: bool = True
) -> Thermochemistry:
    """Return the corrections of harmonic vibrations, with the entropy of low modes after Grimme.

    Parameters
    ----------
    wave_numbers : (n_modes,) float array, 1/cm
        All modes; negative ones are left out and counted.
    temperature : Quantity or float, K
    quasi_harmonic : bool
        Whether the entropy of a mode of wave number v is w S_vib + (1 - w) S_rot with w = 1/(1 + (100/v)^4), or S_vib.

    Raises
    ------
    SettingError
        If a wave number is not finite or zero, or the temperature is not positive.

    Notes
    -----
    Source: Grimme, Chem. Eur. J. 18, 9955 (2012), eqs. 3 to 8.
    """
    found = check_array("wave_numbers", wave_numbers, (None,))
    kelvin = check_quantity("temperature", temperature, unit.kelvin, above=0.0)
    if (found == 0.0).any():
        raise SettingError("wave_numbers has a zero: leave translations and rotations out")
    real = found[found > 0.0]
    quanta = real * KJ_PER_MOL_OF_PER_CM
    thermal = GAS_CONSTANT * kelvin
    x = quanta / thermal
    zero_point = 0.5 * float(quanta.sum())
    # x / (e^x - 1) without overflow.
    excited = x * np.exp(-x) / -np.expm1(-x)
    energy = zero_point + thermal * float(excited.sum())
    vibration = GAS_CONSTANT * (excited - np.log(-np.expm1(-x)))
    if check_flag("quasi_harmonic", quasi_harmonic):
        per_second = real * LIGHT_IN_CM_PER_SECOND
        inertia = PLANCK_IN_JOULE_SECOND / (8.0 * np.pi**2 * per_second)
        reduced = inertia * AVERAGE_INERTIA / (inertia + AVERAGE_INERTIA)
        joule = BOLTZMANN_IN_JOULE * kelvin
        rotation = GAS_CONSTANT * (0.5 + 0.5 * np.log(8.0 * np.pi**3 * reduced * joule / PLANCK_IN_JOULE_SECOND**2))
        weight = 1.0 / (1.0 + (LOW / real) ** 4)
        vibration = weight * vibration + (1.0 - weight) * rotation
    entropy = float(vibration.sum())
    kj = unit.kilojoule_per_mole
    return Thermochemistry(
        kelvin * unit.kelvin,
        zero_point * kj,
        energy * kj,
        entropy * kj / unit.kelvin,
        (energy - kelvin * entropy) * kj,
        len(real),
        len(found) - len(real),
        int((real < LOW).sum()),
    )


def eyring_rate(
    barrier: Scalar, temperature: Scalar = 298.15, *, negative_wave_number: float | None = None
) -> unit.Quantity:
    """Return the rate constant of a first-order reaction, 1/s.

    Parameters
    ----------
    barrier : Quantity or float, kJ/mol
        Free energy of activation.
    temperature : Quantity or float, K
    negative_wave_number : float, 1/cm, optional
        Wave number of the reacting mode, as negative number, for Wigner's tunnelling correction
        1 + (h v / k T)^2 / 24.

    Raises
    ------
    SettingError
        If a number is out of range.

    Notes
    -----
    k = kappa (k_B T / h) exp(-barrier / R T). Sources: Eyring, J. Chem. Phys. 3, 107 (1935); Wigner, Z. Phys. Chem. B
    19, 203 (1932).
    """
    height = check_quantity("barrier", barrier, unit.kilojoule_per_mole)
    kelvin = check_quantity("temperature", temperature, unit.kelvin, above=0.0)
    rate = BOLTZMANN_IN_JOULE * kelvin / PLANCK_IN_JOULE_SECOND * float(np.exp(-height / (GAS_CONSTANT * kelvin)))
    return rate * tunnelling_factor(negative_wave_number, kelvin) / unit.second


def tunnelling_factor(negative_wave_number: float | None, temperature: Scalar = 298.15) -> float:
    """Return Wigner's factor for a mode of negative wave number, 1/cm; one without a mode."""
    if negative_wave_number is None:
        return 1.0
    if not check_quantity("negative_wave_number", negative_wave_number, unit.dimensionless) < 0.0:
        raise SettingError(f"negative_wave_number is that of a saddle point and below zero, got {negative_wave_number}")
    kelvin = check_quantity("temperature", temperature, unit.kelvin, above=0.0)
    ratio = negative_wave_number * KJ_PER_MOL_OF_PER_CM / (GAS_CONSTANT * kelvin)
    return 1.0 + ratio * ratio / 24.0
