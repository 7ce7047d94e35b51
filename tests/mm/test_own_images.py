"""Models that compute a region's periodic images themselves, against plain PME."""

import numpy as np
import openmm
import pytest
from openmm import unit

from qmmlmm import Hamiltonian, OpenMMMLPotential, Region, Term, create_mixed_system
from qmmlmm.coupling.potential import Capabilities
from qmmlmm.errors import HamiltonianError, UnsupportedSystemError
from tests.contexts import system_energy_and_forces
from tests.mm.tolerances import CUTOFF_ENERGY, CUTOFF_FORCE
from tests.toy_potentials import BOTH, SettingsOnly
from tests.toy_systems import PEPTIDE, isolated_molecule, nonbonded_force, tight_pme, without_lennard_jones


@pytest.fixture
def periodic_model(tip4p_cube):
    """A model of openmm-ml that is the peptide's force field, with Ewald electrostatics if there is a box."""
    import openmmml

    molecule = without_lennard_jones(isolated_molecule(tip4p_cube, PEPTIDE), range(22))

    class ForceFieldWithImages(openmmml.mlpotential.MLPotentialImpl):
        def addForces(self, topology, system, atoms, forceGroup, **args):
            for force in molecule.getForces():
                copy = openmm.XmlSerializer.clone(force)
                if isinstance(copy, openmm.NonbondedForce) and topology.getPeriodicBoxVectors() is not None:
                    copy.setNonbondedMethod(openmm.NonbondedForce.PME)
                    copy.setCutoffDistance(0.8)
                    copy.setPMEParameters(4.5 / 0.8, 48, 48, 48)
                system.addForce(copy)

    class Factory(openmmml.mlpotential.MLPotentialImplFactory):
        def createImpl(self, name, **args):
            return ForceFieldWithImages()

    openmmml.MLPotential.registerImplFactory("force-field-with-images", Factory())
    return openmmml.MLPotential("force-field-with-images")


@pytest.mark.parametrize("scale", [1.0, 1.03])
def test_a_long_range_model_and_a_local_one_that_repeat_the_force_field_both_give_it_back(
    tip4p_cube, periodic_model, scale
):
    case = tip4p_cube
    system = without_lennard_jones(tight_pme(case), PEPTIDE)
    box = scale * np.array([vector.value_in_unit(unit.nanometer) for vector in system.getDefaultPeriodicBoxVectors()])
    energy, forces = system_energy_and_forces(system, case.positions, box=box)
    for long_range in (False, True):
        potential = OpenMMMLPotential(periodic_model, long_range=long_range)
        hamiltonian = Hamiltonian([Term(potential, Region("peptide", PEPTIDE), embedding="mechanical")])
        mixed = create_mixed_system(case.topology, system, hamiltonian)
        mixed_energy, mixed_forces = system_energy_and_forces(mixed.system, case.positions, box=box)
        assert mixed_energy == pytest.approx(energy, abs=CUTOFF_ENERGY)
        np.testing.assert_allclose(mixed_forces, forces, atol=CUTOFF_FORCE)


def test_the_images_of_a_long_range_model_are_not_counted_twice(tip4p_cube, periodic_model):
    """What is taken out is the Ewald energy of the region's charges minus their direct sum in one image."""
    case = tip4p_cube
    system = tight_pme(case)
    # The mesh must not count: 1e-5 of what is compared.
    nonbonded_force(system).setPMEParameters(4.5 / 0.8, 128, 128, 128)
    potential = OpenMMMLPotential(periodic_model, long_range=True)
    region = Region("peptide", PEPTIDE)
    mixed = create_mixed_system(
        case.topology, system, Hamiltonian([Term(potential, region, embedding="mechanical")])
    ).system
    (taken_out,) = (force for force in mixed.getForces() if isinstance(force, openmm.CustomCVForce))
    taken_out.setForceGroup(30)
    found, _ = system_energy_and_forces(mixed, case.positions, groups={30})

    molecule = isolated_molecule(case, PEPTIDE)
    charges = nonbonded_force(molecule)
    q = np.array([charges.getParticleParameters(k)[0]._value for k in range(22)])
    expected = -image_energy_by_direct_sum(case.positions[:22], q, case.topology.getUnitCellDimensions()[0]._value)
    assert abs(expected) > 0.1
    assert found == pytest.approx(expected, rel=1e-4)


class EmbeddedWithImages(SettingsOnly):
    @property
    def capabilities(self):
        return Capabilities(BOTH, long_range=True)


def image_energy_by_direct_sum(positions, charges, edge, reach=24):
    """Coulomb energy of a neutral molecule with its images in a ball of cells, without the ball's surface."""
    shifts = np.array([s for s in np.ndindex(*(2 * reach + 1,) * 3)]) - reach
    distances = np.linalg.norm(shifts, axis=1) / reach
    # The ball fades out over its outer half: the sum converges faster than with a sharp surface.
    weights = np.where(distances < 0.5, 1.0, np.cos(np.pi * (np.minimum(distances, 1.0) - 0.5)) ** 2)
    kept = (weights > 0.0) & (distances > 0.0)
    shifts, weights = shifts[kept] * edge, weights[kept]
    total = 0.0
    for i, q in enumerate(charges):
        for j, other in enumerate(charges):
            inverse = 1.0 / np.linalg.norm(positions[i] - positions[j] + shifts, axis=1)
            total += 0.5 * q * other * (weights @ inverse)
    dipole = charges @ positions
    # Surface term of a sphere in vacuum, de Leeuw, Perram and Smith, Proc. R. Soc. A 373, 27 (1980).
    total -= 2.0 * np.pi / 3.0 * dipole @ dipole / edge**3
    return 138.93545764438198 * total


def test_long_range_is_refused_where_there_are_no_images_or_they_are_counted_otherwise(
    amber_vacuum, tip4p_cube, periodic_model
):
    long_range = OpenMMMLPotential(periodic_model, long_range=True)
    local = OpenMMMLPotential(periodic_model)
    region = Region("peptide", PEPTIDE)
    with pytest.raises(UnsupportedSystemError, match="there are no images"):
        create_mixed_system(
            amber_vacuum.topology, amber_vacuum.system, Hamiltonian([Term(long_range, region, embedding="mechanical")])
        )
    with pytest.raises(HamiltonianError, match="all terms of the region do"):
        Hamiltonian(
            [
                Term(long_range, region, embedding="mechanical", coefficient=0.5),
                Term(local, region, embedding="mechanical", coefficient=0.5),
            ]
        )
    embedded = EmbeddedWithImages("ML")
    with pytest.raises(HamiltonianError, match="goes with mechanical embedding"):
        Hamiltonian([Term(embedded, region, embedding="electrostatic")])
