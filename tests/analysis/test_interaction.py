"""The interaction energy of a region, residue by residue, against derivatives and against other ways to it."""

import copy
import csv
from dataclasses import replace

import numpy as np
import openmm
import pytest
import torch
from openmm import unit
from pyscf import gto, scf

from qmmlmm import (
    Hamiltonian,
    MLPotential,
    OpenMMPotential,
    PySCFPotential,
    Region,
    Term,
    create_mixed_system,
    select,
    suggest_charge,
)
from qmmlmm.analysis.interaction import (
    boundary_charges,
    plot_interactions,
    residue_interactions,
    save_interaction_figure,
)
from qmmlmm.coupling.potential import Capabilities, EvaluatedPotential, Evaluator
from qmmlmm.embedding.evaluated_term import EvaluatedTerm
from qmmlmm.errors import HamiltonianError, PotentialError, RegionError, UnsupportedSystemError
from qmmlmm.geometry import Geometry
from qmmlmm.learning import region_potential
from qmmlmm.ml.response_network import ResponseNetwork
from qmmlmm.ml.response_settings import ResponseSettings
from qmmlmm.mm.boundary import boundary_bonded_energy, lennard_jones_energies
from qmmlmm.mm.creation import create_region_term
from qmmlmm.units import HARTREE_IN_KJ_PER_MOL
from systems import acetone_water, alanine_dipeptide
from tests.contexts import make_context, system_energy_and_forces
from tests.finite_differences import central_difference
from tests.quick_torch import quick_torch

KJ = unit.kilojoule_per_mole
SCALING = 1e-3
# Energies converged to 1e-12 hartree and divided by 2e-3, with a margin of twenty.
DERIVATIVE = 1e-8
# The same operator, summed in two orders.
SAME_OPERATOR = 1e-8
ROUND_OFF = 1e-10
# alpha times the cutoff of the NonbondedForce: nobody can tell where erfc ends.
REACH = 6.0
# kJ/mol; error of the mesh for one residue at the default tolerance of 5e-4.
MESH = 0.01
# kJ/mol; differences of energies of 1e4 kJ/mol on the Reference platform.
FIXED_CHARGES = 1e-6
SIDE_CHAIN = "resname ALA and sidechain"


def geometry_of(structure):
    """All particles, nm."""
    return Geometry.from_quantities(structure.positions, structure.topology.getPeriodicBoxVectors())


def context_of(mixed, structure):
    return make_context(mixed.system, structure.positions)


def energy_of(force, like, positions):
    """Energy of one Force alone, kJ/mol, in a System with the particles and the box of another."""
    system = openmm.System()
    for k in range(like.getNumParticles()):
        system.addParticle(like.getParticleMass(k))
    system.setDefaultPeriodicBoxVectors(*like.getDefaultPeriodicBoxVectors())
    system.addForce(force)
    return system_energy_and_forces(system, positions)[0]


def nonbonded(system):
    return next(force for force in system.getForces() if isinstance(force, openmm.NonbondedForce))


def scaled(system, particles, factor):
    """The System with charges of these particles multiplied; exceptions act among the force field's own atoms only."""
    result = copy.deepcopy(system)
    force = nonbonded(result)
    for particle in particles:
        charge, sigma, epsilon = force.getParticleParameters(particle)
        force.setParticleParameters(particle, factor * charge, sigma, epsilon)
    return result


def derivative_by_charges(layout, sources, potential, geometry):
    """The derivative of a term's energy, kJ/mol, by a factor of the charges of some sources."""

    def energy_of(charges):
        moved = replace(layout, surroundings=replace(layout.surroundings, source_charges=charges))
        return create_region_term(moved, potential).compute(geometry)[0]

    charges = layout.surroundings.source_charges
    change = np.zeros_like(charges)
    change[sources] = charges[sources]
    return central_difference(energy_of, charges, change, SCALING)


@pytest.fixture(scope="module")
def peptide():
    """Alanine dipeptide in water, its methyl group cut off between CA and CB."""
    structure = alanine_dipeptide.build()
    atoms = select(structure.topology, SIDE_CHAIN)
    potential = PySCFPotential("hf", "sto-3g", density_fit=False, conv_tol=1e-12)
    region = Region("methyl", atoms, charge=suggest_charge(structure.system, atoms))
    hamiltonian = Hamiltonian([Term(potential, region, embedding="electrostatic")])
    return structure, hamiltonian


@pytest.fixture(scope="module")
def mixed(peptide):
    structure, hamiltonian = peptide
    return create_mixed_system(structure.topology, structure.system, hamiltonian)


@pytest.fixture(scope="module")
def table(peptide, mixed):
    return residue_interactions(mixed, context_of(mixed, peptide[0]), group_solvent=False)


def near_water(structure, table):
    """Index of the water closest to the region, and its row."""
    residues = list(structure.topology.residues())
    waters = [k for k, label in enumerate(table.labels) if label.startswith("HOH")]
    row = min(waters, key=lambda k: table.distance[k])
    return next(r for r in residues if f"HOH{r.id}" == table.labels[row]), row


@pytest.mark.parametrize("which", ["ACE", "NME", "water"])
def test_a_residues_energy_is_the_derivative_by_the_scaling_of_its_charges(peptide, table, which):
    structure, hamiltonian = peptide
    if which == "water":
        residue, row = near_water(structure, table)
    else:
        residue = next(r for r in structure.topology.residues() if r.name == which)
        row = table.labels.index(f"{which}{residue.id}")
    particles = [atom.index for atom in residue.atoms()]

    def energy_of(factor):
        system = scaled(structure.system, particles, factor)
        mixed = create_mixed_system(structure.topology, system, hamiltonian)
        return mixed.evaluated_term("methyl/QM").energy_and_gradient(geometry_of(structure).in_bohr())[0]

    derivative = central_difference(energy_of, 1.0, 1.0, SCALING)
    energy = table.electrostatic[row].value_in_unit(KJ) / HARTREE_IN_KJ_PER_MOL
    assert abs(energy) > 100 * DERIVATIVE
    assert energy == pytest.approx(derivative, rel=0, abs=DERIVATIVE)


@pytest.mark.parametrize("scheme", ["rcd", "rc", "shift", "zero"])
def test_the_residue_of_a_cut_has_the_derived_charges(peptide, scheme):
    structure, hamiltonian = peptide
    term = replace(hamiltonian.terms[0], boundary_charges=scheme)
    mixed = create_mixed_system(structure.topology, structure.system, Hamiltonian([term]))
    table = residue_interactions(mixed, context_of(mixed, structure), lennard_jones=False)
    layout = mixed.term("methyl/QM").layout
    alanine = next(r for r in structure.topology.residues() if r.name == "ALA")
    inside = set(layout.atoms)
    n = layout.n_particles
    belongs = [atom.index for atom in alanine.atoms() if atom.index not in inside]
    belongs += range(n, len(layout.surroundings.source_charges))  # there is one cut
    derivative = derivative_by_charges(layout, belongs, term.potential, geometry_of(structure)) / HARTREE_IN_KJ_PER_MOL
    row = table.labels.index(f"ALA{alanine.id} outside the region")
    energy = table.electrostatic[row].value_in_unit(KJ) / HARTREE_IN_KJ_PER_MOL
    assert energy == pytest.approx(derivative, rel=0, abs=DERIVATIVE)


@pytest.mark.parametrize("vacuum", [False, True], ids=["box", "no box"])
def test_all_residues_and_images_add_up_to_the_energy_in_the_field(peptide, vacuum):
    structure = alanine_dipeptide.build(vacuum=vacuum)
    _, hamiltonian = peptide
    potential = hamiltonian.terms[0].potential
    mixed = create_mixed_system(structure.topology, structure.system, hamiltonian)
    layout = mixed.term("methyl/QM").layout
    geometry = geometry_of(structure)
    term = EvaluatedTerm(layout, potential)
    parts = term.interaction(geometry)
    # The density that PySCF converges in this field, and its energy without it.
    here = term.field_at(geometry.in_bohr())
    evaluator = potential.create_evaluator(layout.specification)
    embedded = evaluator.mean_field(Geometry(here.sites), here.external_field()).run(conv_tol=1e-12)
    density = embedded.make_rdm1()
    atoms = list(zip(layout.specification.atomic_numbers.tolist(), here.sites.tolist(), strict=True))
    molecule = gto.M(atom=atoms, unit="Bohr", basis="sto-3g", verbose=0)
    alone = scf.RHF(molecule)
    assert parts.interaction_energy == pytest.approx(
        embedded.e_tot - alone.energy_tot(dm=density), rel=0, abs=SAME_OPERATOR
    )
    assert parts.vacuum_energy == pytest.approx(alone.run(conv_tol=1e-12).e_tot, rel=0, abs=SAME_OPERATOR)
    assert parts.polarisation_energy > 0


def test_the_table_adds_up(peptide, mixed, table):
    structure, hamiltonian = peptide
    grouped = residue_interactions(mixed, context_of(mixed, structure))
    assert grouped.interaction_energy._value == pytest.approx(table.interaction_energy._value, rel=ROUND_OFF)
    water = grouped.labels.index("water")
    waters = [k for k, label in enumerate(table.labels) if label.startswith("HOH")]
    assert grouped.residues[water] == len(waters)
    assert grouped.total[water]._value == pytest.approx(sum(table.total[k]._value for k in waters), rel=1e-8)
    term = mixed.evaluated_term("methyl/QM")
    parts = EvaluatedTerm(term.layout, term.potential).interaction(geometry_of(structure))
    energy = HARTREE_IN_KJ_PER_MOL * (parts.embedded_energy - parts.vacuum_energy)
    assert (table.interaction_energy + table.polarisation)._value == pytest.approx(energy, rel=0, abs=1e-6)


def test_lennard_jones_is_that_of_openmm(peptide, mixed, table):
    structure, _ = peptide
    force = copy.deepcopy(nonbonded(mixed.system))
    force.setUseDispersionCorrection(False)
    for k in range(force.getNumParticles()):
        _, sigma, epsilon = force.getParticleParameters(k)
        force.setParticleParameters(k, 0.0, sigma, epsilon)
    for k in range(force.getNumExceptions()):
        i, j, _, sigma, epsilon = force.getExceptionParameters(k)
        force.setExceptionParameters(k, i, j, 0.0, sigma, epsilon)
    without = copy.deepcopy(force)
    region = set(mixed.regions[0].particles)
    for k in region:
        without.setParticleParameters(k, 0.0, 1.0, 0.0)
    for k in range(without.getNumExceptions()):
        i, j, *_ = without.getExceptionParameters(k)
        if i in region or j in region:
            without.setExceptionParameters(k, i, j, 0.0, 1.0, 0.0)
    energies = [energy_of(one, mixed.system, structure.positions) for one in (force, without)]
    assert table.lennard_jones.sum()._value == pytest.approx(energies[0] - energies[1], rel=1e-8)


def test_a_switched_lennard_jones_is_that_of_openmm():
    system = openmm.System()
    force = openmm.NonbondedForce()
    force.setNonbondedMethod(openmm.NonbondedForce.CutoffNonPeriodic)
    force.setCutoffDistance(1.0)
    force.setUseSwitchingFunction(True)
    force.setSwitchingDistance(0.6)
    places = np.array([[0, 0, 0], [0.34, 0, 0], [0.8, 0, 0], [0, 0.97, 0], [0, 0, 1.2]])
    for k in range(len(places)):
        system.addParticle(1.0)
        force.addParticle(0.0, 0.3 + 0.01 * k, 0.5 + 0.1 * k)
    for i in range(1, len(places)):
        for j in range(1, i):
            force.addException(i, j, 0.0, 1.0, 0.0)
    system.addForce(force)
    expected, _ = system_energy_and_forces(system, places)
    energies, distances = lennard_jones_energies(system, [0], Geometry(places))
    assert energies.sum() == pytest.approx(expected, rel=1e-9)
    assert energies[4] == 0.0
    np.testing.assert_allclose(distances, np.linalg.norm(places, axis=1))


def test_bonded_terms_across_the_cut_are_what_the_region_loses_with_its_bond(peptide, mixed, table):
    structure, _ = peptide
    region = set(mixed.regions[0].particles)
    # The same energy from the original force field, term by term with OpenMM's own formulas.
    expected = 0.0
    x = np.array(structure.positions.value_in_unit(unit.nanometer))
    for force in structure.system.getForces():
        if isinstance(force, openmm.HarmonicBondForce):
            for k in range(force.getNumBonds()):
                i, j, length, constant = force.getBondParameters(k)
                if (i in region) != (j in region):
                    expected += 0.5 * constant._value * (np.linalg.norm(x[i] - x[j]) - length._value) ** 2
        elif isinstance(force, openmm.HarmonicAngleForce):
            for k in range(force.getNumAngles()):
                i, j, k3, angle, constant = force.getAngleParameters(k)
                if 0 < len({i, j, k3} & region) < 3:
                    a, b = x[i] - x[j], x[k3] - x[j]
                    theta = np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
                    expected += 0.5 * constant._value * (theta - angle._value) ** 2
        elif isinstance(force, openmm.PeriodicTorsionForce):
            for k in range(force.getNumTorsions()):
                i, j, k3, k4, period, phase, constant = force.getTorsionParameters(k)
                if 0 < len({i, j, k3, k4} & region) < 4:
                    b1, b2, b3 = x[j] - x[i], x[k3] - x[j], x[k4] - x[k3]
                    n1, n2 = np.cross(b1, b2), np.cross(b2, b3)
                    phi = np.arctan2(np.linalg.norm(b2) * b1 @ n2, n1 @ n2)
                    expected += constant._value * (1 + np.cos(period * phi - phase._value))
    assert table.bonded._value == pytest.approx(expected, rel=1e-6)
    assert boundary_bonded_energy(mixed.system, [], Geometry(x)) == 0.0


def test_fixed_charges_give_the_force_fields_own_interactions(monkeypatch):
    monkeypatch.setattr("qmmlmm.mm.term_layouts.SHORT_RANGE_REACH", REACH)
    structure = alanine_dipeptide.build()
    force = nonbonded(structure.system)
    force.setPMEParameters(REACH / force.getCutoffDistance()._value, 75, 75, 75)
    atoms = [a.index for a in structure.topology.atoms() if a.residue.name == "HOH"][:3]
    inner, own = openmm.System(), openmm.NonbondedForce()
    for a in atoms:
        inner.addParticle(1.0)
        own.addParticle(force.getParticleParameters(a)[0], 1.0, 0.0)
    for i in range(3):
        for j in range(i):
            own.addException(i, j, 0.0, 1.0, 0.0)
    inner.addForce(own)
    hamiltonian = Hamiltonian([Term(OpenMMPotential(inner), Region("water", atoms), embedding="electrostatic")])
    mixed = create_mixed_system(structure.topology, structure.system, hamiltonian)
    table = residue_interactions(mixed, context_of(mixed, structure))
    peptide = [atom.index for atom in structure.topology.atoms() if atom.residue.name != "HOH"]
    rest = [k for k in range(structure.system.getNumParticles()) if k not in peptide and k not in atoms]

    def coulomb(*charged):
        """Energy of plain PME when only these particles have charges, kJ/mol."""
        part = copy.deepcopy(force)
        keep = frozenset().union(*charged)
        for k in range(part.getNumParticles()):
            charge, _, _ = part.getParticleParameters(k)
            part.setParticleParameters(k, charge if k in keep else 0.0, 1.0, 0.0)
        for k in range(part.getNumExceptions()):
            i, j, *_ = part.getExceptionParameters(k)
            part.setExceptionParameters(k, i, j, 0.0, 1.0, 0.0)
        return energy_of(part, structure.system, structure.positions)

    single = {name: coulomb(group) for name, group in (("region", atoms), ("peptide", peptide), ("water", rest))}
    with_peptide = coulomb(atoms, peptide) - single["region"] - single["peptide"]
    with_water = coulomb(atoms, rest) - single["region"] - single["water"]
    rows = [k for k, label in enumerate(table.labels) if label != "water"]
    energies = table.electrostatic.value_in_unit(KJ)
    assert sum(energies[k] for k in rows) == pytest.approx(with_peptide, abs=FIXED_CHARGES)
    assert energies[table.labels.index("water")] == pytest.approx(with_water, abs=FIXED_CHARGES)
    assert table.polarisation._value == pytest.approx(0.0, abs=1e-9)


class Polarisable(torch.nn.Module):
    """Charges, dipoles and polarisabilities of a methane made of one site each."""

    def forward(self, positions: torch.Tensor, potential: torch.Tensor, field: torch.Tensor) -> torch.Tensor:
        charges = 0.1 * torch.cos(torch.arange(positions.shape[0], dtype=positions.dtype))
        charges = charges - charges.mean()
        return (charges * potential).sum() - 0.5 * (3.0 * (field * field).sum(-1)).sum() - 0.2 * field[:, 0].sum()


def test_a_learned_region_has_the_same_derivatives(peptide):
    structure, hamiltonian = peptide
    model = MLPotential(Polarisable(), elements=[1, 6], embeddings=["electrostatic"])
    term = replace(hamiltonian.terms[0], potential=model)
    mixed = create_mixed_system(structure.topology, structure.system, Hamiltonian([term]), ml_backend="pythonforce")
    table = residue_interactions(mixed, context_of(mixed, structure), lennard_jones=False, group_solvent=False)
    layout = mixed.term("methyl/ML").layout
    geometry = geometry_of(structure)
    parts = mixed.term("methyl/ML").runner.region_term.interaction(geometry)
    residue = next(r for r in structure.topology.residues() if r.name == "NME")
    particles = [atom.index for atom in residue.atoms()]
    derivative = derivative_by_charges(layout, particles, model, geometry)
    row = table.labels.index(f"NME{residue.id}")
    assert table.electrostatic[row]._value == pytest.approx(derivative, rel=1e-7)
    # Without permanent moments that change, polarising costs half of what the induced dipoles gain.
    assert parts.polarisation_energy > 0
    assert parts.vacuum_energy == pytest.approx(0.0, abs=1e-12)
    assert len(EvaluatedTerm(layout, hamiltonian.terms[0].potential).field_at(geometry.in_bohr()).sites) == 5


@pytest.fixture(scope="module")
def near_network():
    """A network with random weights that sees near charges besides their potential, and one that does not."""
    torch.manual_seed(5)
    settings = ResponseSettings(
        features=4, layers=1, radial_functions=4, near_cutoff=5.0, near_functions=4, near_features=2, tensor_features=0
    )
    bonds = [(0, 1), (0, 2), (0, 3), (0, 4)]
    network = ResponseNetwork([6, 1, 1, 1, 1], bonds, settings, [(0, 1, 0)], dtype=torch.float64)
    with quick_torch():
        seeing = region_potential(network)
        network.near_scale = 0.0
        yield seeing, region_potential(network)


@pytest.mark.parametrize("vacuum", [False, True], ids=["box", "no box"])
def test_a_network_that_sees_near_charges_has_the_same_derivatives(peptide, near_network, vacuum):
    structure, (term,) = alanine_dipeptide.build(vacuum=vacuum), peptide[1].terms
    model, blind = near_network
    mixed = create_mixed_system(
        structure.topology, structure.system, Hamiltonian([replace(term, potential=model)]), ml_backend="pythonforce"
    )
    context = context_of(mixed, structure)
    table = residue_interactions(mixed, context, lennard_jones=False)
    layout, geometry = mixed.term("methyl/ML").layout, geometry_of(structure)
    outside = np.setdiff1d(np.arange(len(layout.surroundings.source_charges)), layout.atoms)
    derivative = derivative_by_charges(layout, outside, model, geometry)
    assert table.electrostatic.sum()._value == pytest.approx(derivative, rel=1e-7)
    other = residue_interactions(mixed, context, potential=blind, lennard_jones=False)
    assert abs(table.electrostatic.sum() - other.electrostatic.sum())._value > 1e-3


def test_charges_before_and_after_add_up(peptide):
    structure, hamiltonian = peptide
    for scheme in ("rcd", "rc", "shift", "zero"):
        term = replace(hamiltonian.terms[0], boundary_charges=scheme)
        mixed = create_mixed_system(structure.topology, structure.system, Hamiltonian([term]))
        rows = boundary_charges(mixed, structure.system)
        assert sum(row.before for row in rows) == pytest.approx(sum(row.after for row in rows), abs=ROUND_OFF)
        assert rows[0].label == "region 'methyl'"
        assert rows[0].after == pytest.approx(0.0, abs=ROUND_OFF)
        assert rows[0].before == pytest.approx(0.0, abs=0.3)
        assert "CA" in rows[1].label
        assert rows[1].after == 0.0


def test_the_table_is_written_with_all_that_adds_up(table, tmp_path):
    table.write_csv(tmp_path / "interactions.csv")
    with open(tmp_path / "interactions.csv", encoding="utf-8", newline="") as file:
        assert file.readline().startswith('#"Residue","Number","Electrostatic (kJ/mol)"')
        rows = list(csv.reader(file))
    assert len(rows) == len(table) + 3
    total = sum(float(row[2]) for row in rows[: len(table)]) + float(rows[len(table)][2])
    assert total == pytest.approx(table.interaction_energy._value, abs=1e-3)
    assert rows[-1][0] == "bonded terms across the cut"


def test_the_figure_shows_the_strongest_residues(table, tmp_path):
    axes = plot_interactions(table, count=6)
    widths = [bar.get_width() for bar in axes.patches]
    assert len(widths) == 6
    assert widths == sorted(widths)
    weakest = min(abs(w) for w in widths)
    assert sum(abs(table.total._value) > weakest - 1e-9) == 6
    assert "kJ/mol" in axes.get_xlabel()
    save_interaction_figure(table, tmp_path / "interactions.png", count=6)
    assert (tmp_path / "interactions.png").stat().st_size > 1000


def test_another_potential_can_take_the_place_of_the_terms_own(peptide, mixed, table):
    structure, _ = peptide
    larger = PySCFPotential("hf", "6-31g", density_fit=False)
    other = residue_interactions(mixed, context_of(mixed, structure), potential=larger, group_solvent=False)
    assert other.polarisation > table.polarisation
    np.testing.assert_array_equal(other.lennard_jones._value, table.lennard_jones._value)


def test_a_step_that_was_computed_is_not_computed_again(peptide, mixed, table):
    context = context_of(mixed, peptide[0])
    context.getState(forces=True)
    evaluations = mixed.term("methyl/QM").runner.evaluations
    again = residue_interactions(mixed, context, group_solvent=False)
    assert mixed.term("methyl/QM").runner.evaluations == evaluations
    np.testing.assert_allclose(again.electrostatic._value, table.electrostatic._value, atol=1e-6)
    context.setPositions(context.getState(positions=True).getPositions(asNumpy=True) + 0.01 * unit.nanometer)
    moved = residue_interactions(mixed, context, group_solvent=False)
    assert mixed.term("methyl/QM").runner.evaluations == evaluations + 1
    # All atoms were moved alike: the mesh lies elsewhere, and its error is that of OpenMM's settings.
    np.testing.assert_allclose(moved.electrostatic._value, table.electrostatic._value, atol=MESH)


def test_what_cannot_be_decomposed_is_an_error(peptide, mixed):
    structure, hamiltonian = peptide
    context = context_of(mixed, structure)
    with pytest.raises(HamiltonianError, match="no term 'methyl/MM'"):
        residue_interactions(mixed, context, "methyl/MM")
    mechanical = replace(hamiltonian.terms[0], embedding="mechanical")
    alone = create_mixed_system(structure.topology, structure.system, Hamiltonian([mechanical]))
    with pytest.raises(HamiltonianError, match="mechanical embedding"):
        residue_interactions(alone, context)

    class Silent(EvaluatedPotential):
        level = "QM"
        capabilities = Capabilities(frozenset({"electrostatic"}))

        def create_evaluator(self, specification):
            evaluator = hamiltonian.terms[0].potential.create_evaluator(specification)

            class Quiet(Evaluator):
                def evaluate(self, geometry, field):
                    return replace(evaluator.evaluate(geometry, field), charge_energies=None)

            return Quiet()

    with pytest.raises(PotentialError, match="has no interaction with single charges"):
        residue_interactions(mixed, context, potential=Silent())


def test_lennard_jones_in_other_forces_is_an_error(peptide, mixed):
    structure, _ = peptide
    geometry = geometry_of(structure)
    custom = copy.deepcopy(mixed.system)
    custom.addForce(openmm.CustomNonbondedForce("0"))
    with pytest.raises(UnsupportedSystemError, match="lennard_jones=False"):
        lennard_jones_energies(custom, [0], geometry)
    lattice = copy.deepcopy(mixed.system)
    nonbonded(lattice).setNonbondedMethod(openmm.NonbondedForce.LJPME)
    with pytest.raises(UnsupportedSystemError, match="LJPME"):
        lennard_jones_energies(lattice, [0], geometry)


def test_the_charge_of_a_region_comes_from_the_force_field():
    structure = acetone_water.build()
    assert suggest_charge(structure.system, range(10)) == 0
    with pytest.raises(RegionError, match="no integer"):
        suggest_charge(structure.system, [2])
