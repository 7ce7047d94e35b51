"""Energies in a field against independent code, and limits that are known exactly.

The numbers are of tblite 0.8 at accuracy 1e-4. dxtb 0.4, which shares no code with it, gives the same energies in the
same potential, gradient and curvature up to a constant of 8e-7 hartree for each method, gradients that differ by 2.4e-9
hartree/bohr, charges by 5e-9, dipoles by 3e-9 and quadrupoles by 4e-9 atomic units.
"""

from __future__ import annotations

import numpy as np
import pytest
from tblite.interface import Calculator

from qmmlmm import XTBPotential
from qmmlmm.coupling.potential import ExternalField, RegionSpecification
from qmmlmm.geometry import Geometry

SAME = 1e-8  # hartree, hartree/bohr and e: as many digits as the references have
TIGHT = 1e-4
CHECK = "GFN-xTB, water and methyl among charges against tblite and dxtb"


def evaluated(potential, specification, geometry, field):
    return potential.create_evaluator(specification).evaluate(geometry, field)


@pytest.mark.parametrize(
    ("method", "multipoles", "energy", "charge", "gradient"),
    [
        ("gfn2-xtb", 1, -5.1616086212, -0.67148904, 0.05888075),
        ("gfn1-xtb", 0, -5.8468083937, -0.81383671, 0.05053343),
        ("gfn2-xtb", 2, -5.1653498025, None, None),
    ],
)
def test_water_among_charges_is_its_reference(
    truth, water, geometry, field, method, multipoles, energy, charge, gradient
):
    found = evaluated(XTBPotential(method, multipoles=multipoles, accuracy=TIGHT), water, geometry, field)
    truth.below(f"{CHECK}: energy", found.energy - energy, SAME, "hartree")
    if charge is not None:
        truth.below(f"{CHECK}: charge", found.results["mulliken_charges"][0] - charge, SAME, "e")
        truth.below(f"{CHECK}: forces", found.gradient[0, 2] - gradient, SAME, "hartree/bohr")


@pytest.mark.parametrize(("method", "energy"), [("gfn2-xtb", -5.0697671417), ("gfn1-xtb", -5.7681261804)])
def test_water_in_vacuum_is_that_of_tblite_itself(water, geometry, method, energy):
    found = evaluated(XTBPotential(method, accuracy=TIGHT), water, geometry, None)
    name = {"gfn2-xtb": "GFN2-xTB", "gfn1-xtb": "GFN1-xTB"}[method]
    calculator = Calculator(name, np.array([8, 1, 1]), geometry.positions)
    calculator.set("verbosity", 0)
    calculator.set("accuracy", TIGHT)
    result = calculator.singlepoint()
    assert found.energy == pytest.approx(energy, abs=SAME)
    assert found.energy == pytest.approx(result.get("energy"), abs=1e-12)
    np.testing.assert_allclose(found.gradient, result.get("gradient"), rtol=0, atol=1e-12)
    assert found.charge_gradient.shape == (0, 3)
    assert found.smooth_charges.shape == (0,)
    assert found.charge_energies is None


def test_a_radical_among_charges_has_its_reference_energy(truth, field):
    positions = np.array([[0.0, 0.0, 0.1], [2.05, 0.0, 0.0], [-1.02, 1.77, 0.0], [-1.02, -1.77, 0.05]])
    methyl = RegionSpecification("methyl/XTB", np.array([6, 1, 1, 1]), 0, 2)
    found = evaluated(XTBPotential(accuracy=TIGHT), methyl, Geometry(positions), field)
    truth.below(f"{CHECK}: energy", found.energy + 3.5874066389, SAME, "hartree")


def flat_potential(points):
    return np.full(len(points), 0.3), np.zeros_like(points)


@pytest.mark.parametrize("numbers", [[8, 1, 1], [1, 1, 1]], ids=["water", "trihydrogen"])
def test_a_constant_potential_adds_the_charge_times_it(numbers, geometry):
    # In a region of hydrogen alone, arrays of orbitals look like arrays of atoms.
    cation = RegionSpecification("cation/XTB", np.array(numbers), 1, 2 if numbers[0] == 8 else 1)
    potential = XTBPotential(accuracy=TIGHT)
    alone = evaluated(potential, cation, geometry, None)
    nothing = np.zeros(0)
    constant = ExternalField(np.zeros((0, 3)), nothing, nothing, None, flat_potential)
    found = evaluated(potential, cation, geometry, constant)
    assert found.energy == pytest.approx(alone.energy + 0.3, abs=1e-10)
    np.testing.assert_allclose(found.gradient, alone.gradient, rtol=0, atol=1e-9)


def test_the_field_of_a_far_charge_acts_on_charge_and_dipole_of_the_molecule(water, geometry):
    alone = evaluated(XTBPotential(accuracy=TIGHT), water, geometry, None)
    far = 1000.0
    field = ExternalField(np.array([[0.0, 0.0, far]]), np.array([1.0]), np.zeros(1))
    found = evaluated(XTBPotential(accuracy=TIGHT), water, geometry, field)
    # A charge q at z feels the dipole with -q mu_z/z^2; the quadrupole is smaller by 1/z.
    expected = alone.results["dipole"][2] / far**2
    assert expected > 5e-7
    assert found.energy - alone.energy == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize(("method", "multipoles"), [("gfn2-xtb", None), ("gfn1-xtb", None), ("gfn1-xtb", 1)])
def test_the_dipole_is_the_response_of_the_energy_to_a_uniform_field(geometry, method, multipoles):
    cation = RegionSpecification("cation/XTB", np.array([8, 1, 1]), 1, 2)
    evaluator = XTBPotential(method, multipoles=multipoles, accuracy=TIGHT).create_evaluator(cation)
    results = evaluator.evaluate(geometry, None).results
    nothing, step = np.zeros(0), 1e-3
    for axis in np.eye(3):
        energies = []
        for size in (step, -step):

            def uniform(points, slope=size * axis, origin=results["dipole_origin"]):
                return (points - origin) @ slope, np.tile(slope, (len(points), 1))

            around = ExternalField(np.zeros((0, 3)), nothing, nothing, None, uniform)
            energies.append(evaluator.evaluate(geometry, around).energy)
        # The third derivative of the energy by the field is of the order of 10.
        assert (energies[0] - energies[1]) / (2 * step) == pytest.approx(results["dipole"] @ axis, abs=1e-5)
