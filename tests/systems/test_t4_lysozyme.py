import numpy as np
import openmm
import pytest
from openmm import app, unit

from systems import reference, solution
from systems.structure import Structure
from systems.t4_lysozyme import LIGAND, builder

# Sums of a few thousand double-precision terms agree to this, relative to the largest of them.
ROUND_OFF = 1e-12
# A relative error of an energy measured with the same OpenMM on another processor.
SAME_ENERGY = 1e-7


@pytest.fixture(scope="module")
def structure() -> Structure:
    return builder.build()


@pytest.fixture(scope="module")
def flexible() -> Structure:
    return builder.build(constraints=None, rigid_water=False, nonbonded_method=app.NoCutoff)


def energies(system: openmm.System, positions: np.ndarray) -> dict[str, float]:
    """Energies of the solute's Force classes on the Reference platform, kJ/mol."""
    for group, force in enumerate(system.getForces()):
        force.setForceGroup(group)
    platform = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
    context.setPositions(positions)
    return {
        force.getName(): context.getState(energy=True, groups={group})
        .getPotentialEnergy()
        .value_in_unit(unit.kilojoule_per_mole)
        for group, force in enumerate(system.getForces())
    }


def cut_solute(structure: Structure) -> openmm.System:
    """The solute's part of the solvated System, term by term."""
    n = builder.N_SOLUTE
    part = openmm.System()
    for i in range(n):
        part.addParticle(structure.system.getParticleMass(i))
    for force in structure.system.getForces():
        if isinstance(force, openmm.HarmonicBondForce):
            new, get, add, n_atoms = openmm.HarmonicBondForce(), "getBondParameters", "addBond", 2
            count = force.getNumBonds()
        elif isinstance(force, openmm.HarmonicAngleForce):
            new, get, add, n_atoms = openmm.HarmonicAngleForce(), "getAngleParameters", "addAngle", 3
            count = force.getNumAngles()
        elif isinstance(force, openmm.PeriodicTorsionForce):
            new, get, add, n_atoms = openmm.PeriodicTorsionForce(), "getTorsionParameters", "addTorsion", 4
            count = force.getNumTorsions()
        elif isinstance(force, openmm.NonbondedForce):
            new, get, add, n_atoms = openmm.NonbondedForce(), "getExceptionParameters", "addException", 2
            count = force.getNumExceptions()
            for i in range(n):
                new.addParticle(*force.getParticleParameters(i))
        else:
            continue
        for i in range(count):
            parameters = getattr(force, get)(i)
            inside = [atom < n for atom in parameters[:n_atoms]]
            assert all(inside) or not any(inside), "a term joins the solute and the solvent"
            if all(inside):
                getattr(new, add)(*parameters)
        part.addForce(new)
    return part


def test_counts_and_charge_are_those_of_the_reference(structure: Structure) -> None:
    expected = reference.read_reference(builder.FOLDER, "default")
    assert structure.topology.getNumAtoms() == expected["n_atoms"]
    assert structure.topology.getNumBonds() == expected["n_bonds"]
    assert structure.system.getNumConstraints() == expected["n_constraints"]
    assert structure.charges().sum() == pytest.approx(expected["net_charge_e"], abs=1e-8)
    residues = [residue.name for residue in structure.topology.residues()]
    assert {name: residues.count(name) for name in expected["residues"]} == expected["residues"]


def test_energies_by_force_are_those_of_the_reference(structure: Structure) -> None:
    expected = reference.read_reference(builder.FOLDER, "default")["potential_energy_kj_per_mol"]
    measured = reference.energies_by_force(structure)
    assert measured.keys() == expected.keys()
    for name, energy in expected.items():
        assert measured[name] == pytest.approx(energy, rel=SAME_ENERGY), name


def test_the_solute_keeps_the_energies_of_its_prmtop(flexible: Structure) -> None:
    prmtop, _ = builder.load_solute()
    positions = flexible.positions[: builder.N_SOLUTE]
    expected = energies(prmtop.createSystem(removeCMMotion=False), positions)
    measured = energies(cut_solute(flexible), positions)
    assert measured.keys() == expected.keys()
    for name, energy in expected.items():
        assert measured[name] == pytest.approx(energy, rel=ROUND_OFF), name


def test_the_solute_keeps_the_scale_of_its_1_4_interactions(flexible: Structure) -> None:
    (force,) = [f for f in flexible.system.getForces() if isinstance(f, openmm.NonbondedForce)]
    ratios = []
    for i in range(force.getNumExceptions()):
        a, b, product, _, _ = force.getExceptionParameters(i)
        charges = [force.getParticleParameters(k)[0].value_in_unit(unit.elementary_charge) for k in (a, b)]
        product = product.value_in_unit(unit.elementary_charge**2)
        if b in LIGAND and abs(product) > 1e-6:
            ratios.append(product / (charges[0] * charges[1]))
    np.testing.assert_allclose(ratios, 1 / 1.2, rtol=1e-6)


def test_the_ligand_is_p_xylene_with_all_its_bonds(structure: Structure) -> None:
    assert structure.select("LIG") == list(LIGAND)
    atoms = list(structure.topology.atoms())
    assert [atoms[i].element.symbol for i in LIGAND] == ["C"] * 8 + ["H"] * 10
    bonds = [bond for bond in structure.topology.bonds() if bond[0].index in LIGAND]
    assert len(bonds) == 18
    assert all(bond[1].index in LIGAND for bond in bonds)


def test_every_atom_outside_ions_has_a_bond(structure: Structure) -> None:
    bonded = {atom.index for bond in structure.topology.bonds() for atom in bond}
    alone = [atom.residue.name for atom in structure.topology.atoms() if atom.index not in bonded]
    assert sorted(set(alone)) == ["CL", "NA"]
    assert len(alone) == builder.SOLVENT.n_sodium + builder.SOLVENT.n_chloride


def test_atoms_keep_a_sane_distance(structure: Structure) -> None:
    positions = structure.positions.value_in_unit(unit.nanometer)
    box = np.array(structure.topology.getPeriodicBoxVectors().value_in_unit(unit.nanometer))
    assert np.isfinite(positions).all()
    first_water = structure.select("HOH")[0]
    oxygens = positions[first_water::3]
    assert solution.nearest_distances(oxygens, positions[:first_water], box).min() > 0.13
    for bond in structure.topology.bonds():
        length = np.linalg.norm(positions[bond[0].index] - positions[bond[1].index])
        assert 0.08 < length < 0.2, bond


def test_the_topology_and_the_system_have_one_box(structure: Structure) -> None:
    expected = reference.read_reference(builder.FOLDER, "default")["box_vectors_nm"]
    of_topology = structure.topology.getPeriodicBoxVectors().value_in_unit(unit.nanometer)
    of_system = [row.value_in_unit(unit.nanometer) for row in structure.system.getDefaultPeriodicBoxVectors()]
    np.testing.assert_array_equal(np.array(of_topology), np.array(of_system))
    np.testing.assert_allclose(np.array(of_system), expected, rtol=0, atol=1e-8)


def test_options_reach_the_system() -> None:
    structure = builder.build(
        nonbonded_cutoff=0.8 * unit.nanometer,
        ewald_error_tolerance=1e-5,
        constraints=None,
        hydrogen_mass=3 * unit.dalton,
        remove_cm_motion=False,
    )
    (force,) = [f for f in structure.system.getForces() if isinstance(f, openmm.NonbondedForce)]
    assert force.getNonbondedMethod() == openmm.NonbondedForce.PME
    assert force.getCutoffDistance() == 0.8 * unit.nanometer
    assert force.getEwaldErrorTolerance() == 1e-5
    assert structure.system.getNumConstraints() == 3 * builder.SOLVENT.n_water
    assert structure.system.getParticleMass(LIGAND[-1]) == 3 * unit.dalton
    assert not [f for f in structure.system.getForces() if isinstance(f, openmm.CMMotionRemover)]


def test_an_unknown_nonbonded_method_is_refused() -> None:
    with pytest.raises(ValueError, match="nonbonded_method is one of NoCutoff"):
        builder.build(nonbonded_method="PME")
