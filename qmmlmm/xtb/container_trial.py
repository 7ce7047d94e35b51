"""The test of the container of tblite: small molecules in fields for which the result is known."""

from __future__ import annotations

import sys

import numpy as np
from tblite import library as bindings
from tblite.interface import Calculator

from qmmlmm.units import FloatArray
from qmmlmm.xtb.multipoles import AtomicPotential
from qmmlmm.xtb.tblite_container import PotentialContainer

METHODS = ("GFN2-xTB", "GFN1-xTB")
ACCURACY = 1e-3
WATER = np.array([8, 1, 1]), np.array([[0.0, 0.0, 0.0], [1.4, 0.1, 1.1], [-1.4, 0.2, 1.1]])
HYDROGEN = np.array([1, 1]), np.array([[0.0, 0.0, 0.0], [0.3, 0.4, 1.3]])
"""Where each atom has one orbital, arrays of orbitals look like arrays of atoms."""

FIELD = np.array([0.01, -0.02, 0.015])
STEP = 1e-3
"""Step of the potential and its derivatives, atomic units. The third derivative of the energy leaves an error below "
"1e-9."""


def largest_deviation() -> float:
    """Return the largest deviation of energies, gradients and multipoles, atomic units."""
    found = [uniform_field(method, *molecule) for method in METHODS for molecule in (WATER, HYDROGEN)]
    found += [check(method, *WATER) for method in METHODS for check in (response, rotation)]
    return float(max(found))


def uniform_field(method: str, numbers: FloatArray, positions: FloatArray) -> float:
    """Return the deviation of a uniform field in the container from tblite's own, in energy and gradient."""
    n = len(numbers)
    own, other = _calculator(method, numbers, positions), _calculator(method, numbers, positions)
    container = PotentialContainer(own, n)
    container.set(AtomicPotential(-positions @ FIELD, np.tile(-FIELD, (n, 1)), np.zeros((n, 3, 3))))
    field = bindings.lib.tblite_new_electric_field(bindings.ffi.new("double[3]", list(FIELD)))
    bindings.calculator_push_back(other._ctx, other._calc, field)
    ours, expected = own.singlepoint(), other.singlepoint()
    gradient = ours.get("gradient") - container.multipoles.charges[:, None] * FIELD
    return max(abs(ours.get("energy") - expected.get("energy")), float(abs(gradient - expected.get("gradient")).max()))


def response(method: str, numbers: FloatArray, positions: FloatArray) -> float:
    """Return the deviation of the energy's derivative with respect to a potential from the multipoles."""
    n = len(numbers)
    direction = _some_potential(n)
    calculator = _calculator(method, numbers, positions)
    container = PotentialContainer(calculator, n)
    energies, expected = [], 0.0
    for factor in (0.0, STEP, -STEP):
        container.set(
            AtomicPotential(factor * direction.value, factor * direction.gradient, factor * direction.curvature)
        )
        energies.append(float(calculator.singlepoint().get("energy")))
        if factor == 0.0:
            expected = container.multipoles.energy(direction)
    return abs((energies[1] - energies[2]) / (2.0 * STEP) - expected)


def rotation(method: str, numbers: FloatArray, positions: FloatArray) -> float:
    """Return the change of the energy when molecule and potential are rotated together."""
    turn, _ = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))
    potential = _some_potential(len(numbers))
    turned = AtomicPotential(potential.value, potential.gradient @ turn.T, turn @ potential.curvature @ turn.T)
    energies = []
    for places, around in ((positions, potential), (positions @ turn.T, turned)):
        calculator = _calculator(method, numbers, places)
        container = PotentialContainer(calculator, len(numbers))
        container.set(around)
        energies.append(float(calculator.singlepoint().get("energy")))
    return abs(energies[1] - energies[0])


def _some_potential(n_atoms: int) -> AtomicPotential:
    """Return a potential whose derivatives have no symmetry."""
    random = np.random.default_rng(1)
    value, gradient, curvature = (
        0.05 * random.normal(size=shape) for shape in ((n_atoms,), (n_atoms, 3), (n_atoms, 3, 3))
    )
    curvature = curvature + curvature.transpose(0, 2, 1)
    # Without a trace, as without charge at the atom.
    trace = np.trace(curvature, axis1=1, axis2=2)[:, None, None]
    return AtomicPotential(value, gradient, curvature - trace * np.eye(3) / 3.0)


def _calculator(method: str, numbers: FloatArray, positions: FloatArray) -> Calculator:
    calculator = Calculator(method, numbers, positions)
    calculator.set("verbosity", 0)
    calculator.set("accuracy", ACCURACY)
    return calculator


def main() -> None:
    """Write the largest deviation to standard output."""
    sys.stdout.write(f"{largest_deviation():.3e}\n")
