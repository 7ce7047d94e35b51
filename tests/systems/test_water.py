import numpy as np
import openmm
import pytest
from openmm import unit

from systems import reference, solution
from systems.water import builder

# A relative error of an energy measured with the same OpenMM on another processor.
SAME_ENERGY = 1e-7

VARIANTS = {
    "tip3p": {},
    "tip3p_flexible": {"rigid_water": False},
    "tip3p_octahedron": {"shape": "octahedron"},
    "tip4pew": {"model": "tip4pew"},
    "tip4pew_octahedron": {"model": "tip4pew", "shape": "octahedron"},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_box_is_that_of_the_reference(variant: str) -> None:
    expected = reference.read_reference(builder.FOLDER, variant)
    measured = reference.measure(builder.build(**VARIANTS[variant]))
    for name in ("n_atoms", "n_bonds", "n_residues", "n_constraints", "residues"):
        assert measured[name] == expected[name], name
    assert measured["net_charge_e"] == pytest.approx(0.0, abs=1e-8)
    np.testing.assert_allclose(measured["box_vectors_nm"], expected["box_vectors_nm"], rtol=0, atol=1e-8)
    energies = expected["potential_energy_kj_per_mol"]
    assert measured["potential_energy_kj_per_mol"].keys() == energies.keys()
    for name, energy in energies.items():
        # Bonds of water that was rigid have 1e-6 kJ/mol from rounding the coordinates.
        assert measured["potential_energy_kj_per_mol"][name] == pytest.approx(energy, rel=SAME_ENERGY, abs=1e-6), name


@pytest.mark.parametrize("variant", VARIANTS)
def test_density_and_distances_are_those_of_water(variant: str) -> None:
    structure = builder.build(**VARIANTS[variant])
    positions = structure.positions.value_in_unit(unit.nanometer)
    box = np.array(structure.topology.getPeriodicBoxVectors().value_in_unit(unit.nanometer))
    per_molecule = np.linalg.det(box) / builder.N_WATER
    # 0.0299 nm^3 at the experimental density; a box of this size fluctuates by one percent.
    assert 0.0285 < per_molecule < 0.0320
    sites = len(positions) // builder.N_WATER
    oxygens = positions[::sites]
    nearest = [
        solution.nearest_distances(oxygens[i : i + 1], np.delete(oxygens, i, axis=0), box)[0]
        for i in range(0, len(oxygens), 10)
    ]
    assert min(nearest) > 0.23
    assert max(nearest) < 0.4


def test_the_octahedron_is_triclinic_in_reduced_form() -> None:
    (a, b, c) = np.array(
        builder.build(shape="octahedron").topology.getPeriodicBoxVectors().value_in_unit(unit.nanometer)
    )
    np.testing.assert_allclose([b[0] / a[0], c[0] / a[0], c[1] / b[1]], [1 / 3, -1 / 3, 1 / 2], rtol=1e-9)


def test_tip4pew_has_a_virtual_site_in_every_water() -> None:
    structure = builder.build(model="tip4pew")
    sites = [i for i in range(structure.system.getNumParticles()) if structure.system.isVirtualSite(i)]
    assert sites == list(range(3, 4 * builder.N_WATER, 4))
    # A site that is placed anew stays where it is, up to the rounding of the file.
    context = openmm.Context(
        structure.system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference")
    )
    context.setPositions(structure.positions)
    context.computeVirtualSites()
    placed = context.getState(positions=True).getPositions(asNumpy=True)
    shift = (placed - structure.positions).value_in_unit(unit.nanometer)
    assert np.abs(shift).max() < 1e-6


def test_an_unknown_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="cube, octahedron"):
        builder.build(shape="sphere")


def test_an_unknown_model_is_refused() -> None:
    with pytest.raises(ValueError, match="tip3p, tip4pew"):
        builder.build(model="spc")
