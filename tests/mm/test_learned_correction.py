"""A base and a learned correction in a System: together one surface, which is the target's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import openmm
import pytest
import torch
from openmm import unit
from torch import Tensor

from qmmlmm import Hamiltonian, MLPotential, Region, Term, XTBPotential, create_mixed_system
from qmmlmm.analysis.interaction import residue_interactions
from qmmlmm.coupling import Difference, LevelOfTheory
from qmmlmm.errors import HamiltonianError
from qmmlmm.ml import ResponseNetwork, ResponseSettings, region_potential
from qmmlmm.mm.model_exchange import exchange_model
from qmmlmm.sampling import MultipleTimeStepIntegrator
from tests.contexts import energy_and_forces, make_context, system_energy_and_forces, term_differences, term_forces
from tests.quick_torch import quick_torch
from tests.toy_potentials import ELEMENTS, Committee, EvaluatedSprings, PolarisableModel
from tests.toy_systems import PEPTIDE, SIDE_CHAIN

SAME_ENERGY = 1e-6  # kJ/mol, of some 1e4 in double precision, and of sums in another order
SAME_FORCE = 1e-5  # kJ/(mol nm)
# Of a force of up to some 1e4: differences at four points over 2e-5 nm, of an energy of 1e4 with 1e-11 of noise.
NUMERICAL = 2e-3  # kJ/(mol nm)
STEP = 2e-5  # nm

N_SITES = {SIDE_CHAIN: 5, PEPTIDE: 22}


def charges(n):
    """Fixed charges of the base."""
    return 0.1 * np.cos(np.arange(n))


class Rest(torch.nn.Module):
    """`PolarisableModel` less `EvaluatedSprings`: what a perfect training of the difference leaves."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.target = PolarisableModel()
        self.register_buffer("charges", torch.tensor(charges(n)))

    def forward(self, positions: Tensor, potential: Tensor, field: Tensor) -> Tensor:
        n = positions.shape[0]
        pairs = torch.triu_indices(n, n, 1)
        r = torch.sqrt(((positions[pairs[0]] - positions[pairs[1]]) ** 2).sum(-1))
        springs = 0.001 * ((r - 4.0) ** 2).sum()
        return self.target(positions, potential, field) - springs - (self.charges * potential).sum()


def target():
    return MLPotential(PolarisableModel(), elements=ELEMENTS, embeddings=["electrostatic"])


def base(n):
    return EvaluatedSprings(charges(n))


def difference_to(potential):
    return Difference(LevelOfTheory("target"), potential.level_of_theory)


def rest(n):
    return MLPotential(Rest(n), elements=ELEMENTS, embeddings=["electrostatic"], difference=difference_to(base(n)))


def mixed_of(case, terms, parameters=None):
    hamiltonian = Hamiltonian(terms, parameters=parameters)
    return create_mixed_system(case.topology, case.system, hamiltonian, ml_backend="pythonforce")


def together(atoms, **options):
    region, n = Region("site", atoms), N_SITES[atoms]
    return [
        Term(base(n), region, embedding="electrostatic"),
        Term(rest(n), region, embedding="electrostatic", correction=True, **options),
    ]


@pytest.mark.parametrize("atoms", [SIDE_CHAIN, PEPTIDE], ids=["cut", "whole"])
@pytest.mark.parametrize("surroundings", ["amber_vacuum", "tip4p_cube"])
def test_base_and_perfect_difference_are_the_target(request, surroundings, atoms):
    """Also the images of reference charges, which count once and not twice."""
    case = request.getfixturevalue(surroundings)
    whole = mixed_of(case, [Term(target(), Region("site", atoms), embedding="electrostatic")])
    wanted, forces = system_energy_and_forces(whole.system, case.positions)
    mixed = mixed_of(case, together(atoms))
    found, found_forces = system_energy_and_forces(mixed.system, case.positions)
    assert list(mixed.terms) == ["site/QM", "site/correction"]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=SAME_ENERGY)
    np.testing.assert_allclose(found_forces, forces, rtol=0, atol=SAME_FORCE)
    assert np.abs(term_forces(mixed, "site/correction", case.positions)).max() > 1.0


@pytest.mark.slow
def test_two_regions_with_corrections_are_two_targets(tip4p_cube):
    """Reference charges of one region act on the other; they count once in each base, and not in a correction."""
    topology = tip4p_cube.topology
    water = [a.index for a in next(r for r in topology.residues() if r.name == "HOH").atoms() if a.element is not None]
    other = Region("water", water)
    n = len(water)
    terms = [
        *together(SIDE_CHAIN),
        Term(base(n), other, embedding="electrostatic"),
        Term(rest(n), other, embedding="electrostatic", correction=True),
    ]
    mixed = mixed_of(tip4p_cube, terms)
    whole = mixed_of(
        tip4p_cube,
        [Term(target(), region, embedding="electrostatic") for region in (Region("site", SIDE_CHAIN), other)],
    )
    found, forces = system_energy_and_forces(mixed.system, tip4p_cube.positions)
    wanted, wanted_forces = system_energy_and_forces(whole.system, tip4p_cube.positions)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=SAME_ENERGY)
    np.testing.assert_allclose(forces, wanted_forces, rtol=0, atol=SAME_FORCE)


def delta_network(numbers, potential, members=1):
    torch.manual_seed(4)
    settings = ResponseSettings(features=6, layers=1, radial_functions=6, near_features=3, tensor_features=3)
    network = ResponseNetwork(
        numbers, [], settings, [(0, 1, 0)], members, torch.float64, difference=difference_to(potential)
    )
    return region_potential(network)


@pytest.mark.slow
def test_forces_of_base_and_network_are_derivatives_on_every_atom(tip4p_cube):
    """A cut bond under PME: region, host of the link atom, the charges next to it, near and far water."""
    case, numbers = tip4p_cube, [6, 1, 1, 1, 1]
    terms = [
        Term(base(5), Region("site", SIDE_CHAIN), embedding="electrostatic"),
        Term(delta_network(numbers, base(5)), Region("site", SIDE_CHAIN), embedding="electrostatic", correction=True),
    ]
    with quick_torch():
        mixed = mixed_of(case, terms)
        name = "site/correction"
        forces = term_forces(mixed, name, case.positions)
        away = np.linalg.norm(case.positions - case.positions[10], axis=1)
        order = [int(k) for k in np.argsort(away) if k >= 22]
        atoms = [10, 11, 8, 6, 9, *order[:2], order[-1]]
        numerical = term_differences(mixed, name, case.positions, atoms, STEP)
    np.testing.assert_allclose(forces[atoms], numerical, rtol=0, atol=NUMERICAL)
    assert np.abs(forces[8]).max() > 1.0
    assert np.abs(forces[order[0]]).max() > 0.1


def test_a_parameter_goes_from_the_base_to_the_target(amber_vacuum):
    mixed = mixed_of(amber_vacuum, together(PEPTIDE, coefficient="scale"), {"scale": 0.0})
    context = make_context(mixed.system, amber_vacuum.positions)
    region = Region("site", PEPTIDE)
    for scale, potential in ((0.0, base(22)), (1.0, target())):
        context.setParameter("scale", scale)
        alone = mixed_of(amber_vacuum, [Term(potential, region, embedding="electrostatic")])
        wanted, forces = system_energy_and_forces(alone.system, amber_vacuum.positions)
        found, found_forces = energy_and_forces(context)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=SAME_ENERGY)
        np.testing.assert_allclose(found_forces, forces, rtol=0, atol=SAME_FORCE)
    energies = mixed.term_energies(context)
    slope = mixed.parameter_derivatives(context)["scale"]
    np.testing.assert_allclose(slope._value, energies["site/correction"]._value, rtol=0, atol=SAME_ENERGY)


@pytest.mark.slow
def test_interactions_by_residue_of_base_and_correction_add_up_to_the_targets(amber_vacuum):
    """Of a base with energies of single charges."""
    region = Region("site", PEPTIDE)
    low = XTBPotential()
    rest_of_xtb = MLPotential(
        PolarisableModel(), elements=ELEMENTS, embeddings=["electrostatic"], difference=difference_to(low)
    )
    mixed = mixed_of(
        amber_vacuum,
        [
            Term(low, region, embedding="electrostatic"),
            Term(rest_of_xtb, region, embedding="electrostatic", correction=True),
        ],
    )
    context = make_context(mixed.system, amber_vacuum.positions)
    single = mixed_of(amber_vacuum, [Term(target(), region, embedding="electrostatic")])
    parts = [residue_interactions(mixed, context, name) for name in ("site/XTB", "site/correction")]
    alone = residue_interactions(single, make_context(single.system, amber_vacuum.positions))
    np.testing.assert_allclose(parts[1].electrostatic._value, alone.electrostatic._value, rtol=0, atol=SAME_ENERGY)
    assert np.abs(parts[0].electrostatic._value).max() > 0.1


def test_a_written_system_is_read_with_its_correction(tip4p_cube):
    mixed = mixed_of(tip4p_cube, together(SIDE_CHAIN))
    wanted = system_energy_and_forces(mixed.system, tip4p_cube.positions)
    text = openmm.XmlSerializer.serialize(mixed.system)
    del mixed
    found = system_energy_and_forces(openmm.XmlSerializer.deserialize(text), tip4p_cube.positions)
    assert found[0] == wanted[0]
    np.testing.assert_array_equal(found[1], wanted[1])


def test_qm_corrects_base_and_correction_as_a_slow_force(amber_vacuum):
    """The fast terms are base and correction; what is subtracted is a multiple of them and not computed again."""
    fast, region = together(PEPTIDE), Region("site", PEPTIDE)
    slow = [Term(EvaluatedSprings(np.zeros(22)), region, embedding="electrostatic")]
    slow += [replace(term, coefficient=-1.0) for term in fast]
    low = fast[0].potential

    class Other(EvaluatedSprings):
        """A level of its own."""

    slow[0] = Term(Other(np.zeros(22)), region, embedding="electrostatic")
    mixed = mixed_of(amber_vacuum, [*fast, *slow])
    integrator = MultipleTimeStepIntegrator(mixed, None, 0.0, 0.4 * unit.femtosecond, inner_steps=4)
    context = make_context(mixed.system, amber_vacuum.positions, integrator=integrator)
    integrator.step(2)
    assert mixed.hamiltonian.terms[0].potential is low
    evaluations = {name: term.runner.evaluations for name, term in mixed.terms.items()}
    assert evaluations["site/-correction"] == evaluations["site/-QM"] == 0
    assert evaluations["site/correction"] >= 8
    assert context.getStepCount() == 2


def test_the_committee_of_a_correction_has_the_uncertainty(amber_vacuum):
    region = Region("site", PEPTIDE)
    committee = MLPotential(
        Committee(), elements=ELEMENTS, embeddings=["electrostatic"], difference=difference_to(base(22))
    )
    mixed = mixed_of(
        amber_vacuum,
        [
            Term(base(22), region, embedding="electrostatic"),
            Term(committee, region, embedding="electrostatic", correction=True),
        ],
    )
    full = MLPotential(Committee(), elements=ELEMENTS, embeddings=["electrostatic"])
    alone = mixed_of(amber_vacuum, [Term(full, region, embedding="electrostatic")])
    found, wanted = (
        m.force_uncertainty(make_context(m.system, amber_vacuum.positions), name)._value
        for m, name in ((mixed, "site/correction"), (alone, "site/ML"))
    )
    np.testing.assert_array_equal(found, wanted)


def test_a_model_is_not_exchanged_for_one_of_another_kind(amber_vacuum):
    mixed = mixed_of(amber_vacuum, together(PEPTIDE))
    before = system_energy_and_forces(mixed.system, amber_vacuum.positions)[0]
    with pytest.raises(HamiltonianError, match="correction=True is for a difference"):
        exchange_model(mixed, "site/correction", target())
    other = MLPotential(
        Rest(22), elements=ELEMENTS, embeddings=["electrostatic"], difference=difference_to(XTBPotential())
    )
    with pytest.raises(HamiltonianError, match="no term of its base gfn2-xtb"):
        exchange_model(mixed, "site/correction", other)
    assert system_energy_and_forces(mixed.system, amber_vacuum.positions)[0] == before
    exchange_model(mixed, "site/correction", rest(22))


def test_a_report_says_what_a_term_is_a_difference_of(amber_vacuum):
    first, second = mixed_of(amber_vacuum, together(PEPTIDE)).describe()["terms"]
    assert first["correction"] is None
    assert second["correction"] == "target - EvaluatedSprings"
