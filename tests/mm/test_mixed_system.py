"""The whole way: topology, system and Hamiltonian to one System, against energies known otherwise."""

import copy
import re
import subprocess
import sys

import numpy as np
import openmm
import pytest
from openmm import app

from qmmlmm import (
    Hamiltonian,
    MLPotential,
    OpenMMMLPotential,
    OpenMMPotential,
    PySCFPotential,
    Region,
    Term,
    create_mixed_system,
    select,
)
from qmmlmm.errors import (
    ConvergenceError,
    EvaluationError,
    HamiltonianError,
    NonFiniteError,
    PotentialError,
    QmmlmmWarning,
    RegionError,
    UnsupportedSystemError,
)
from qmmlmm.geometry import Geometry
from qmmlmm.mm.torch_force import unavailable_because
from qmmlmm.units import BOHR_IN_NM
from tests.contexts import make_context, system_energy_and_forces, term_differences, term_forces
from tests.mm.tolerances import (
    CUTOFF_ENERGY,
    CUTOFF_FORCE,
    DIFFERENCE_FORCE,
    DIFFERENCE_STEP,
    NET_FORCE,
    QM_DIFFERENCE_FORCE,
    ROUND_OFF_ENERGY,
    ROUND_OFF_FORCE,
)
from tests.torch_backends import BACKENDS
from tests.toy_potentials import BondedSprings, EvaluatedSprings, Failing, PolarisableModel
from tests.toy_systems import (
    PEPTIDE,
    SIDE_CHAIN,
    isolated_molecule,
    nonbonded_force,
    tight_pme,
    without_lennard_jones,
)

# --- a term that repeats the force field gives back the force field ---


@pytest.mark.parametrize("embedding", ["mechanical", "electrostatic"])
@pytest.mark.parametrize("name", ["amber_vacuum", "charmm_vacuum"])
def test_a_term_that_repeats_the_force_field_gives_back_the_force_field_without_a_box(name, embedding, request):
    case = request.getfixturevalue(name)
    if name == "charmm_vacuum" and embedding == "electrostatic":
        # CHARMM36 from ForceField keeps Lennard-Jones in custom forces and charges in the NonbondedForce.
        assert any(isinstance(f, openmm.CustomNonbondedForce) for f in case.system.getForces())
    potential = OpenMMPotential(isolated_molecule(case, PEPTIDE))
    region = Region("peptide", PEPTIDE)
    mixed = create_mixed_system(case.topology, case.system, Hamiltonian([Term(potential, region, embedding=embedding)]))
    energy, forces = system_energy_and_forces(case.system, case.positions)
    mixed_energy, mixed_forces = system_energy_and_forces(mixed.system, case.positions)
    assert mixed_energy == pytest.approx(energy, abs=ROUND_OFF_ENERGY)
    np.testing.assert_allclose(mixed_forces, forces, atol=ROUND_OFF_FORCE)


@pytest.mark.parametrize("embedding", ["mechanical", "electrostatic"])
@pytest.mark.parametrize("name", ["tip4p_cube", "tip4p_octahedron"])
def test_a_term_that_repeats_the_force_field_gives_back_the_force_field_under_pme(name, embedding, request):
    case = request.getfixturevalue(name)
    # The peptide is longer than the cutoff, its own Lennard-Jones pairs in the potential have none.
    system = without_lennard_jones(tight_pme(case), PEPTIDE)
    potential = OpenMMPotential(without_lennard_jones(isolated_molecule(case, PEPTIDE), range(22)))
    mixed = create_mixed_system(
        case.topology, system, Hamiltonian([Term(potential, Region("peptide", PEPTIDE), embedding=embedding)])
    )
    # In skewed boxes the neighbour list of OpenMM 8.5's Reference platform can lose a pair whose atoms are just
    # outside the cell: its energy changes when all is shifted. Shifted so, the pairs at the peptide are complete.
    positions = case.positions + 0.02
    energy, forces = system_energy_and_forces(system, positions)
    mixed_energy, mixed_forces = system_energy_and_forces(mixed.system, positions)
    assert mixed_energy == pytest.approx(energy, abs=CUTOFF_ENERGY)
    np.testing.assert_allclose(mixed_forces, forces, atol=CUTOFF_FORCE)


def test_two_embedded_regions_that_repeat_the_force_field_give_it_back(tip4p_cube):
    case = tip4p_cube
    system = without_lennard_jones(tight_pme(case), PEPTIDE)
    residues = [r for r in case.topology.residues() if r.name == "HOH"]
    water = residues[3]
    atoms = [a.index for a in water.atoms()]
    # The charge of TIP4P sits on a virtual site; here it is given to the oxygen everywhere.
    force = nonbonded_force(system)
    oxygen, h1, h2, site = atoms
    for particle, charge in ((oxygen, -1.04844), (site, 0.0)):
        _, sigma, epsilon = force.getParticleParameters(particle)
        force.setParticleParameters(particle, charge, sigma, epsilon)
    _, sigma, epsilon = force.getParticleParameters(oxygen)
    alone = openmm.System()
    inner = openmm.NonbondedForce()
    for particle in (oxygen, h1, h2):
        alone.addParticle(system.getParticleMass(particle))
        inner.addParticle(*force.getParticleParameters(particle))
    for pair in ((0, 1), (0, 2), (1, 2)):
        inner.addException(*pair, 0.0, 1.0, 0.0)
    alone.addForce(inner)
    hamiltonian = Hamiltonian(
        [
            Term(
                OpenMMPotential(without_lennard_jones(isolated_molecule(case, PEPTIDE), range(22))),
                Region("peptide", PEPTIDE),
                embedding="electrostatic",
            ),
            Term(OpenMMPotential(alone), Region("water", atoms), embedding="electrostatic"),
        ]
    )
    mixed = create_mixed_system(case.topology, system, hamiltonian, remove_constraints=False)
    energy, forces = system_energy_and_forces(system, case.positions)
    mixed_energy, mixed_forces = system_energy_and_forces(mixed.system, case.positions)
    assert mixed_energy == pytest.approx(energy, abs=2 * CUTOFF_ENERGY)
    np.testing.assert_allclose(mixed_forces, forces, atol=2 * CUTOFF_FORCE)


# --- corrections ---


def correction(case, core, embedding="electrostatic", boundary_charges="rcd"):
    rng = np.random.default_rng(3)
    n_core = len(core) + 1  # one link atom
    charges = rng.normal(size=n_core) * 0.2
    whole = MLPotential(PolarisableModel(), elements=[1, 6, 7, 8], embeddings=["electrostatic"])
    ml = MLPotential(BondedSprings(charges), elements=[1, 6, 7, 8], embeddings=["electrostatic"])
    qm = EvaluatedSprings(charges)
    peptide, inner = Region("peptide", PEPTIDE), Region("core", core)
    options = {"embedding": embedding, "boundary_charges": boundary_charges}
    return whole, peptide, [Term(qm, inner, **options), Term(ml, inner, coefficient=-1.0, **options)]


def test_a_qm_and_an_ml_term_with_the_same_energy_function_cancel_in_a_correction(tip4p_cube):
    case = tip4p_cube
    whole, peptide, pair = correction(case, SIDE_CHAIN)
    outer = Term(whole, peptide, embedding="electrostatic")
    plain = create_mixed_system(case.topology, case.system, Hamiltonian([outer]))
    corrected = create_mixed_system(case.topology, case.system, Hamiltonian([outer, *pair]))
    energy, forces = system_energy_and_forces(plain.system, case.positions)
    with_correction, corrected_forces = system_energy_and_forces(corrected.system, case.positions)
    assert with_correction == pytest.approx(energy, abs=ROUND_OFF_ENERGY)
    np.testing.assert_allclose(corrected_forces, forces, atol=ROUND_OFF_FORCE)
    terms = corrected.term_energies(make_context(corrected.system, case.positions))
    assert list(terms) == ["MM", "peptide/ML", "core/QM", "core/-ML"]
    assert abs(terms["core/QM"]._value) > 0.01
    assert sum(e._value for e in terms.values()) == pytest.approx(with_correction, abs=ROUND_OFF_ENERGY)


# --- derivatives ---


@pytest.mark.parametrize(
    "boundary_charges", ["rcd", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("rc", "shift", "zero"))]
)
def test_forces_of_an_embedded_ml_region_with_a_cut_bond_are_central_differences(tip4p_cube, boundary_charges):
    case = tip4p_cube
    model = MLPotential(PolarisableModel(), elements=[1, 6], embeddings=["electrostatic"])
    term = Term(model, Region("side chain", SIDE_CHAIN), embedding="electrostatic", boundary_charges=boundary_charges)
    mixed = create_mixed_system(case.topology, case.system, Hamiltonian([term]))
    # Region, host CA, its neighbours N, HA, C, then water near and far; virtual sites move with their parents.
    atoms = [10, 11, 8, 6, 9, 14, 22, 23, 400]
    forces = term_forces(mixed, "side chain/ML", case.positions)[atoms]
    numerical = term_differences(mixed, "side chain/ML", case.positions, atoms, DIFFERENCE_STEP)
    np.testing.assert_allclose(forces, numerical, atol=DIFFERENCE_FORCE)
    assert np.abs(forces).max(axis=1).min() > 100 * DIFFERENCE_FORCE  # the term acts on all that was tested


def test_forces_of_an_embedded_qm_region_with_a_cut_bond_are_central_differences(amber_vacuum):
    case = amber_vacuum
    qm = PySCFPotential("hf", "sto-3g", conv_tol=1e-11)
    term = Term(qm, Region("side chain", SIDE_CHAIN), embedding="electrostatic")
    mixed = create_mixed_system(case.topology, case.system, Hamiltonian([term]))
    atoms = [10, 11, 8, 9, 22]
    forces = term_forces(mixed, "side chain/QM", case.positions)
    numerical = term_differences(mixed, "side chain/QM", case.positions, atoms, 5e-4)
    np.testing.assert_allclose(forces[atoms], numerical, atol=QM_DIFFERENCE_FORCE)
    assert np.abs(forces[atoms]).max(axis=1).min() > 10 * QM_DIFFERENCE_FORCE
    np.testing.assert_allclose(forces.sum(axis=0), 0.0, atol=NET_FORCE)


# --- an ordinary System ---


@pytest.fixture
def ml_water(tip4p_cube):
    """One TIP4P water as an ML region in its box."""
    case = tip4p_cube
    water = next(r for r in case.topology.residues() if r.name == "HOH")
    atoms = [a.index for a in water.atoms()]
    model = MLPotential(
        BondedSprings(np.array([-0.8, 0.4, 0.4]), stiffness=0.2, length=2.2),
        elements=[1, 8],
        embeddings=["electrostatic", "mechanical"],
    )
    region = Region("water", atoms)
    return case, create_mixed_system(
        case.topology, case.system, Hamiltonian([Term(model, region, embedding="electrostatic")])
    )


def test_virtual_sites_of_a_region_are_not_atoms_of_its_potential_and_lose_their_charge(ml_water):
    case, mixed = ml_water
    layout = mixed.terms["water/ML"].layout
    assert list(layout.specification.atomic_numbers) == [8, 1, 1]
    site = int(layout.atoms[-1]) + 1
    assert mixed.system.isVirtualSite(site)
    force = nonbonded_force(mixed.system)
    assert force.getParticleParameters(site)[0]._value == 0.0


def test_the_system_handed_in_is_not_changed(tip4p_cube):
    before = openmm.XmlSerializer.serialize(tip4p_cube.system)
    _, peptide, pair = correction(tip4p_cube, SIDE_CHAIN)
    create_mixed_system(
        tip4p_cube.topology,
        tip4p_cube.system,
        Hamiltonian([Term(EvaluatedSprings(np.zeros(22)), peptide, embedding="electrostatic"), *pair]),
    )
    assert openmm.XmlSerializer.serialize(tip4p_cube.system) == before


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_serialised_and_a_copied_system_have_the_same_energy_and_forces(tip4p_cube, backend):
    case = tip4p_cube
    whole, peptide, pair = correction(case, SIDE_CHAIN)
    hamiltonian = Hamiltonian([Term(whole, peptide, embedding="electrostatic"), *pair])
    mixed = create_mixed_system(case.topology, case.system, hamiltonian, ml_backend=backend)
    energy, forces = system_energy_and_forces(mixed.system, case.positions)
    for again in (
        openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(mixed.system)),
        copy.deepcopy(mixed.system),
    ):
        again_energy, again_forces = system_energy_and_forces(again, case.positions)
        assert again_energy == pytest.approx(energy, abs=ROUND_OFF_ENERGY)
        np.testing.assert_allclose(again_forces, forces, atol=ROUND_OFF_FORCE)


def test_the_cpu_platform_agrees_with_reference(ml_water):
    case, mixed = ml_water
    reference, _ = system_energy_and_forces(mixed.system, case.positions)
    cpu, _ = system_energy_and_forces(mixed.system, case.positions, platform="CPU")
    assert cpu == pytest.approx(reference, rel=2e-5)  # single precision


def test_constant_pressure_runs_with_a_barostat_that_keeps_the_region_whole(ml_water):
    case, mixed = ml_water
    system = copy.deepcopy(mixed.system)
    barostat = openmm.MonteCarloBarostat(1.0, 300.0, 2)
    barostat.setRandomNumberSeed(1)
    system.addForce(barostat)
    integrator = openmm.LangevinMiddleIntegrator(300.0, 5.0, 0.0005)
    integrator.setRandomNumberSeed(1)
    context = make_context(system, case.positions, platform="CPU", integrator=integrator)
    openmm.LocalEnergyMinimizer.minimize(context, maxIterations=20)
    context.setVelocitiesToTemperature(300.0, 1)
    volumes = []
    for _ in range(10):
        integrator.step(4)
        volumes.append(context.getState().getPeriodicBoxVolume()._value)
    assert len(set(volumes)) > 1
    state = context.getState(positions=True, energy=True)
    positions = state.getPositions(asNumpy=True)._value
    atoms = mixed.terms["water/ML"].layout.atoms
    assert np.ptp(positions[atoms], axis=0).max() < 0.4
    assert np.isfinite(state.getPotentialEnergy()._value)


def test_positions_in_other_images_of_the_box_give_the_same_energy(ml_water):
    case, mixed = ml_water
    box = np.array([list(v._value) for v in mixed.system.getDefaultPeriodicBoxVectors()])
    energy, _ = system_energy_and_forces(mixed.system, case.positions)
    moved = case.positions.copy()
    moved[mixed.terms["water/ML"].layout.atoms[1]] += box[0] - 2 * box[2]
    group = {mixed.force_group("water/ML")}
    here = make_context(mixed.system, case.positions).getState(energy=True, groups=group).getPotentialEnergy()._value
    there = make_context(mixed.system, moved).getState(energy=True, groups=group).getPotentialEnergy()._value
    assert there == pytest.approx(here, abs=ROUND_OFF_ENERGY)


def test_an_unchanged_geometry_is_not_computed_twice(tip4p_cube):
    case = tip4p_cube
    _, peptide, _ = correction(case, SIDE_CHAIN)
    springs = Term(EvaluatedSprings(np.zeros(22)), peptide, embedding="electrostatic")
    mixed = create_mixed_system(case.topology, case.system, Hamiltonian([springs]))
    context = make_context(mixed.system, case.positions)
    context.getState(forces=True)
    context.getState(energy=True)
    mixed.term_energies(context)
    assert mixed.terms["peptide/QM"].runner.evaluations == 1


def test_terms_that_share_a_force_group_are_still_reported_one_by_one(tip4p_cube):
    case = tip4p_cube
    whole, peptide, pair = correction(case, SIDE_CHAIN)
    shared = [
        Term(t.potential, t.region, coefficient=t.coefficient, embedding=t.embedding, force_group=7) for t in pair
    ]
    mixed = create_mixed_system(
        case.topology, case.system, Hamiltonian([Term(whole, peptide, embedding="electrostatic"), *shared])
    )
    assert mixed.force_group("core/QM") == mixed.force_group("core/-ML") == 7
    terms = mixed.term_energies(make_context(mixed.system, case.positions))
    assert terms["core/QM"]._value == pytest.approx(-terms["core/-ML"]._value, abs=ROUND_OFF_ENERGY)
    assert abs(terms["core/QM"]._value) > 0.01


def test_a_potential_of_openmm_ml_is_a_term(amber_vacuum):
    import openmmml

    class Harmonic(openmmml.mlpotential.MLPotentialImpl):
        def addForces(self, topology, system, atoms, forceGroup, **args):
            assert (args["charge"], args["multiplicity"]) == (0, 1)
            force = openmm.CustomBondForce("0.5*k*(r-0.3)^2")
            force.addGlobalParameter("k", 1000.0)
            for i in range(system.getNumParticles()):
                for j in range(i):
                    force.addBond(i, j)
            system.addForce(force)

    class Factory(openmmml.mlpotential.MLPotentialImplFactory):
        def createImpl(self, name, **args):
            return Harmonic()

    openmmml.MLPotential.registerImplFactory("harmonic-test", Factory())
    case = amber_vacuum
    potential = OpenMMMLPotential(openmmml.MLPotential("harmonic-test"))
    water = next(r for r in case.topology.residues() if r.name == "HOH")
    atoms = [a.index for a in water.atoms()]
    mixed = create_mixed_system(
        case.topology, case.system, Hamiltonian([Term(potential, Region("w", atoms), embedding="mechanical")])
    )
    x = case.positions[atoms]
    distances = [np.linalg.norm(x[i] - x[j]) for i in range(3) for j in range(i)]
    expected = sum(500.0 * (d - 0.3) ** 2 for d in distances)
    energy = mixed.term_energies(make_context(mixed.system, case.positions))["w/ML"]
    assert energy._value == pytest.approx(expected, abs=1e-9)


# --- what goes wrong ---


@pytest.mark.parametrize(
    "error",
    [ConvergenceError("term 'peptide/QM' did not converge"), KeyboardInterrupt(), ZeroDivisionError("1/0")],
)
def test_a_failing_term_stops_the_integrator_and_its_exception_comes_back_in_its_class(amber_vacuum, error):
    case = amber_vacuum
    term = Term(Failing(error), Region("peptide", PEPTIDE), embedding="electrostatic")
    mixed = create_mixed_system(case.topology, case.system, Hamiltonian([term]))
    simulation = app.Simulation(
        case.topology, mixed.system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatform("Reference")
    )
    simulation.context.setPositions(case.positions)
    with pytest.raises(openmm.OpenMMException, match=f"{type(error).__name__} at step 0") as caught:
        simulation.step(1)
    assert simulation.context.getStepCount() == 0
    with pytest.raises(type(error)) as original:
        mixed.raise_original(caught.value)
    assert original.value is error
    assert "at step 0" in original.value.__notes__[-1]


def test_term_energies_raise_the_original_exception(amber_vacuum):
    case = amber_vacuum
    term = Term(Failing(ConvergenceError("no")), Region("peptide", PEPTIDE), embedding="electrostatic")
    mixed = create_mixed_system(case.topology, case.system, Hamiltonian([term]))
    with pytest.raises(ConvergenceError, match="no"):
        mixed.term_energies(make_context(mixed.system, case.positions))


def test_positions_that_are_not_numbers_are_caught_with_the_atoms_named(amber_vacuum):
    case = amber_vacuum
    term = Term(EvaluatedSprings(np.zeros(22)), Region("peptide", PEPTIDE), embedding="electrostatic")
    mixed = create_mixed_system(case.topology, case.system, Hamiltonian([term]))
    positions = case.positions.copy()
    positions[5] = np.nan
    with pytest.raises(NonFiniteError, match="peptide/QM.*atoms 5"):
        mixed.term_energies(make_context(mixed.system, positions))


def test_positions_that_are_not_set_are_an_error(amber_vacuum):
    case = amber_vacuum
    term = Term(EvaluatedSprings(np.zeros(22)), Region("peptide", PEPTIDE), embedding="electrostatic")
    mixed = create_mixed_system(case.topology, case.system, Hamiltonian([term]))
    context = openmm.Context(mixed.system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatform("Reference"))
    with pytest.raises(openmm.OpenMMException, match="positions have not been set"):
        mixed.term_energies(context)


def springs(region, **options):
    return Hamiltonian([Term(EvaluatedSprings(np.zeros(22)), region, **{"embedding": "electrostatic"} | options)])


def test_ill_regions_and_systems_are_refused_with_advice(amber_vacuum, tip4p_cube):
    case = amber_vacuum
    n = case.system.getNumParticles()
    with pytest.raises(RegionError, match=f"beyond the last particle {n - 1}"):
        create_mixed_system(case.topology, case.system, springs(Region("far", [0, n])))
    with pytest.raises(RegionError, match="cuts the bond ACE1:C .* of order|bond to hydrogen"):
        create_mixed_system(case.topology, case.system, springs(Region("methyl", [0, 1])))
    with pytest.raises(UnsupportedSystemError, match="31 atoms and the System|particles; pass the pair"):
        create_mixed_system(case.topology, tip4p_cube.system, springs(Region("peptide", PEPTIDE)))
    implicit = copy.deepcopy(case.system)
    gb = openmm.GBSAOBCForce()
    for _ in range(n):
        gb.addParticle(0.0, 0.15, 0.8)
    implicit.addForce(gb)
    with pytest.raises(UnsupportedSystemError, match="GBSAOBCForce"):
        create_mixed_system(case.topology, implicit, springs(Region("peptide", PEPTIDE)))
    without_bonds = app.Topology()
    residue = without_bonds.addResidue("ALL", without_bonds.addChain())
    for atom in case.topology.atoms():
        without_bonds.addAtom(atom.name, atom.element, residue)
    with pytest.raises(UnsupportedSystemError, match="the System bonds ALL1:CA .* - ALL1:CB .* across the border"):
        create_mixed_system(without_bonds, case.system, springs(Region("side chain", SIDE_CHAIN)))
    with pytest.raises(HamiltonianError, match="hamiltonian is an instance of Hamiltonian, got"):
        create_mixed_system(case.topology, case.system, [])
    with pytest.raises(HamiltonianError, match="ml_backend"):
        create_mixed_system(case.topology, case.system, springs(Region("p", PEPTIDE)), ml_backend="gpu")


def test_bonded_regions_are_refused(amber_vacuum):
    case = amber_vacuum
    hamiltonian = Hamiltonian(
        [
            Term(EvaluatedSprings(np.zeros(22)), Region("a", SIDE_CHAIN), embedding="electrostatic"),
            Term(EvaluatedSprings(np.zeros(22)), Region("b", [8, 9]), embedding="electrostatic"),
        ]
    )
    with pytest.raises(RegionError, match="bonded to each other"):
        create_mixed_system(case.topology, case.system, hamiltonian)


def test_a_charge_that_does_not_fit_the_force_field_is_pointed_out(amber_vacuum):
    case = amber_vacuum
    with pytest.warns(QmmlmmWarning, match="has charge 1, but .* in the force field"):
        create_mixed_system(case.topology, case.system, springs(Region("peptide", PEPTIDE, charge=1)))


def test_an_electron_count_that_does_not_fit_is_refused(amber_vacuum):
    case = amber_vacuum
    term = Term(PySCFPotential("hf", "sto-3g"), Region("peptide", PEPTIDE, multiplicity=2), embedding="mechanical")
    with pytest.raises(RegionError, match="electron"):
        create_mixed_system(case.topology, case.system, Hamiltonian([term]))


def test_an_ml_model_that_does_not_know_an_element_is_refused(amber_vacuum):
    case = amber_vacuum
    model = MLPotential(PolarisableModel(), elements=[1, 6], embeddings=["electrostatic"])
    term = Term(model, Region("peptide", PEPTIDE), embedding="electrostatic")
    with pytest.raises(PotentialError, match="does not know the elements with atomic numbers 7, 8"):
        create_mixed_system(case.topology, case.system, Hamiltonian([term]))


def test_a_notebook_shows_terms_and_cut_bonds(tip4p_cube):
    model = MLPotential(PolarisableModel(), elements=[1, 6], embeddings=["electrostatic"])
    region = Region("a<b", select(tip4p_cube.topology, "resname ALA and sidechain"))
    mixed = create_mixed_system(
        tip4p_cube.topology, tip4p_cube.system, Hamiltonian([Term(model, region, embedding="electrostatic")])
    )
    text = mixed._repr_html_()
    assert text.count("<table>") == text.count("</table>") == 2
    assert "<td>a&lt;b/ML</td>" in text
    assert "<td>electrostatic</td><td>4 and 1 link atoms</td><td>0</td>" in text
    assert re.search(r"<td>ALA2:CB[^<]*</td><td>ALA2:CA[^<]*</td>", text)


def test_the_selection_and_the_script_of_the_readme_fit_together(tip4p_cube):
    atoms = select(tip4p_cube.topology, "resname ALA and sidechain")
    assert set(SIDE_CHAIN) == set(atoms)
    model = MLPotential(PolarisableModel(), elements=[1, 6], embeddings=["electrostatic"])
    mixed = create_mixed_system(
        tip4p_cube.topology,
        tip4p_cube.system,
        Hamiltonian([Term(model, Region("ala", atoms), embedding="electrostatic")]),
    )
    description = mixed.describe()
    assert description["regions"][0]["link_bonds"][0]["outside_atom"].startswith("ALA2:CA")
    assert description["terms"][0]["backend"] == ("PythonForce" if unavailable_because() else "TorchForce")


def test_the_charge_that_a_core_and_its_surroundings_have_together_is_that_of_the_system(amber_vacuum):
    case = amber_vacuum
    model = MLPotential(PolarisableModel(), elements=[1, 6, 7, 8], embeddings=["electrostatic"], charge=None)
    outer, core = Region("peptide", PEPTIDE, charge=1), Region("core", SIDE_CHAIN, charge=1)
    terms = [
        Term(model, outer, embedding="electrostatic"),
        Term(model, core, embedding="electrostatic"),
        Term(model, core, embedding="electrostatic", coefficient=-1.0),
    ]
    with pytest.warns(QmmlmmWarning, match="has charge 1"):
        mixed = create_mixed_system(case.topology, case.system, Hamiltonian(terms))
    for name in ("peptide/ML", "core/ML"):
        felt = mixed.terms[name].layout.surroundings.source_charges
        assert felt.sum() == pytest.approx(1.0, abs=1e-12)  # the waters are neutral


def test_a_python_term_can_be_computed_first_from_a_state_in_a_new_process(amber_vacuum, tmp_path):
    # The term is PySCF, since one that uses OpenMM itself would set up what this test finds missing.
    case = amber_vacuum
    water = next(r for r in case.topology.residues() if r.name == "HOH")
    region = Region("water", [atom.index for atom in water.atoms()])
    hamiltonian = Hamiltonian([Term(PySCFPotential("hf", "sto-3g"), region, embedding="mechanical")])
    mixed = create_mixed_system(case.topology, case.system, hamiltonian)
    context = make_context(mixed.system, case.positions)
    energy = context.getState(energy=True).getPotentialEnergy()._value
    (tmp_path / "system.xml").write_text(openmm.XmlSerializer.serialize(mixed.system))
    (tmp_path / "state.xml").write_text(openmm.XmlSerializer.serialize(context.getState(positions=True)))
    script = """
import openmm
system, state = (openmm.XmlSerializer.deserialize(open(name).read()) for name in ("system.xml", "state.xml"))
context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatform("Reference"))
context.setState(state)
print(context.getState(energy=True).getPotentialEnergy()._value)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == pytest.approx(energy, abs=1e-3)


def test_charges_on_a_link_atom_or_from_a_cut_bond_inside_the_region_are_named(amber_vacuum):
    case = amber_vacuum
    region = Region("side chain", SIDE_CHAIN)
    term = Term(PySCFPotential("hf", "sto-3g"), region, embedding="electrostatic")
    mixed = create_mixed_system(case.topology, case.system, Hamiltonian([term]))
    evaluated = mixed.evaluated_term("side chain/QM")
    positions = np.array(case.positions)
    sites = evaluated.field_at(Geometry(positions).in_bohr()).sites * BOHR_IN_NM
    outside, link = evaluated.layout.link_bonds[0][1], sites[-1]
    labels = evaluated.layout.labels
    on_link = positions.copy()
    on_link[22] = link
    expected = re.escape(f"{labels[22]} is 0.00 angstrom from the link atom between {labels[10]} and {labels[outside]}")
    with pytest.raises(EvaluationError, match=expected):
        evaluated.compute(Geometry(on_link))
    # A neighbour of the host so far away that the charge in the middle of its bond falls on an atom of the region.
    origin, towards = (int(k) for k in evaluated.layout.surroundings.derived_bonds[0])
    fraction = evaluated.layout.surroundings.derived_fractions[0]
    bent = positions.copy()
    bent[towards] = positions[origin] + (sites[1] - positions[origin]) / fraction
    name = f"the boundary charge between {labels[origin]} and {labels[towards]} is 0.00 angstrom from {labels[11]}"
    with pytest.raises(EvaluationError, match=re.escape(name)):
        evaluated.compute(Geometry(bent))


# --- Forces are found by their names ---


def two_terms(case):
    region = Region("peptide", PEPTIDE)
    terms = [
        Term(EvaluatedSprings(0.01 * np.ones(22)), region, embedding="electrostatic", coefficient=0.25, name="one"),
        Term(EvaluatedSprings(0.02 * np.ones(22)), region, embedding="electrostatic", coefficient=0.75, name="two"),
    ]
    return create_mixed_system(case.topology, case.system, Hamiltonian(terms))


def index_of(system, name):
    return next(k for k, force in enumerate(system.getForces()) if force.getName() == name)


def test_the_force_of_a_term_is_found_after_others_were_added_and_its_group_was_changed(amber_vacuum):
    case, mixed = amber_vacuum, two_terms(amber_vacuum)
    wanted = mixed.term_energies(make_context(mixed.system, case.positions))
    bias = openmm.CustomExternalForce("10*x^2")
    bias.addParticle(3)
    mixed.system.addForce(bias)
    mixed.force("one").setForceGroup(29)
    # Removing another one moves all that come after it.
    mixed.system.removeForce(index_of(mixed.system, "CMMotionRemover"))
    assert mixed.force("one").getName() == "one"
    assert mixed.force_group("one") == 29
    assert mixed.force("two").getName() == "two"
    found = mixed.term_energies(make_context(mixed.system, case.positions))
    for name in ("one", "two"):
        assert found[name]._value == pytest.approx(wanted[name]._value, abs=ROUND_OFF_ENERGY)
    added = 10.0 * case.positions[3, 0] ** 2
    assert found["MM"]._value == pytest.approx(wanted["MM"]._value + added, abs=ROUND_OFF_ENERGY)
    assert [term["force_group"] for term in mixed.describe()["terms"]] == [29, mixed.force_group("two")]


@pytest.mark.parametrize("change", ["removed", "renamed", "doubled"])
def test_a_force_that_was_removed_or_renamed_or_is_there_twice_is_an_error(amber_vacuum, change):
    mixed = two_terms(amber_vacuum)
    if change == "removed":
        mixed.system.removeForce(index_of(mixed.system, "one"))
    elif change == "renamed":
        mixed.force("one").setName("another")
    else:
        mixed.system.addForce(copy.deepcopy(mixed.force("one")))
        mixed.system.getForces()[-1].setName("one")
    count = 2 if change == "doubled" else 0
    for asked in (mixed.force, mixed.force_group):
        with pytest.raises(HamiltonianError, match=f"the System has {count} Forces named 'one'"):
            asked("one")
    with pytest.raises(HamiltonianError, match="named 'one'"):
        mixed.term_energies(make_context(mixed.system, amber_vacuum.positions))
    assert mixed.force("two").getName() == "two"


def test_a_copy_of_a_mixed_system_finds_its_own_forces(amber_vacuum):
    """Though OpenMM drops the names of PythonForces when it copies a System."""
    mixed = two_terms(amber_vacuum)
    mixed.force("one").setForceGroup(29)
    other = copy.deepcopy(mixed)
    assert other.system is not mixed.system
    other.force("two").setForceGroup(30)
    assert (other.force_group("one"), other.force_group("two")) == (29, 30)
    assert mixed.force_group("two") != 30
    found, wanted = (m.term_energies(make_context(m.system, amber_vacuum.positions)) for m in (other, mixed))
    for name, energy in wanted.items():
        assert found[name]._value == pytest.approx(energy._value, abs=ROUND_OFF_ENERGY)


def test_a_term_that_there_is_not_is_named_with_the_nearest(amber_vacuum):
    mixed = two_terms(amber_vacuum)
    for asked in (mixed.term, mixed.force, mixed.force_group, mixed.evaluated_term, mixed.results):
        with pytest.raises(HamiltonianError, match=r"there is no term 'tow'; terms are: one, two\. Nearest names: two"):
            asked("tow")
