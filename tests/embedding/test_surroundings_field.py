from __future__ import annotations

import math

import numpy as np
import openmm
import pytest
import torch

from qmmlmm import Hamiltonian, MLPotential, Region, Term, create_mixed_system
from qmmlmm.embedding.kernels import screened_kernel, smeared_kernel, smeared_radial
from qmmlmm.embedding.region_geometry import tensors_of
from qmmlmm.embedding.surroundings_field import SurroundingsField
from qmmlmm.embedding.torch_term import EmbeddedTermModule
from qmmlmm.errors import HamiltonianError
from qmmlmm.geometry import Geometry
from tests.contexts import energy_and_forces, make_context, system_energy_and_forces
from tests.embedding.torch_modules import evaluate
from tests.finite_differences import central_difference
from tests.torch_backends import BACKENDS
from tests.toy_potentials import FixedCharges, Polarisable, fixed_in_openmm
from tests.toy_systems import chains_among_ions, nearest_images, nonbonded_force

PLAIN_TOLERANCE = 1e-10  # relative; round-off of a few thousand terms, where both codes truncate at erfc(6)
TRUNCATION_TOLERANCE = 1e-8  # relative; erfc(4) = 1.5e-8 of single pairs, against forces of many
STEP = 2e-5  # nm; its square times the third derivatives of 1/r at 0.2 nm is 1e-8 of the force
DIFFERENCE_TOLERANCE = 1e-7  # of the largest force on the group of atoms; round-off of 1e-13 kJ/mol over STEP
SPLITTING_TOLERANCE = 1e-7  # relative; the error of the meshes used, fifth order in alpha times spacing
PRESSURE_TOLERANCE = 1e-8  # relative; PLAIN_TOLERANCE of the energies over steps of 0.0025 in each length
SMOOTHNESS = 1e-4  # relative; the fifth derivative of the energy with respect to the scale times 0.01^4
SINGLE_TOLERANCE = 2e-6  # relative; float32 holds 6e-8, and the mesh adds up some of it
SAME_PHYSICS = 1e-12  # relative; the same sums in another order
NO_NET_FORCE = 1e-12  # of the largest force; round-off
KERNEL_TOLERANCE = 2e-13  # relative; erf(x)/x near x = 0.1, where the closed form cancels to 0.3 %

SHAPES = ["cubic", "octahedron", "triclinic", None]
CHARGES = [(0, 0), (1, 2)]  # of the region and of the ions


def fixed(charges, atomic_numbers=None):
    return MLPotential(
        FixedCharges(charges),
        atomic_numbers=[6] * len(charges) if atomic_numbers is None else atomic_numbers,
        embeddings=["electrostatic"],
        charge=None,
    )


def regions_of(case):
    return [
        Region(f"chain{k}", atoms, charge)
        for k, (atoms, charge) in enumerate(zip(case.chains, case.region_charges, strict=True))
    ]


def state_same(truth, check, found, expected, tolerance):
    """State that energy and forces are the same; the latter relative to the largest."""
    truth.below(f"{check}: energy", (found[0] - expected[0]) / expected[0], tolerance, "relative")
    error = abs(found[1] - expected[1]).max() / abs(expected[1]).max()
    truth.below(f"{check}: forces", error, tolerance, "relative")


def assert_same(found, expected, tolerance):
    assert found[0] == pytest.approx(expected[0], rel=tolerance)
    np.testing.assert_allclose(found[1], expected[1], rtol=0, atol=tolerance * abs(expected[1]).max())


@pytest.mark.parametrize(("region_charge", "ion_charge"), CHARGES, ids=["neutral", "charged"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_region_of_fixed_charges_gives_the_plain_force_field_back(truth, far_reach, shape, region_charge, ion_charge):
    case = chains_among_ions(shape, region_charge, ion_charge)
    (region,) = regions_of(case)
    potential = fixed(case.charges[: len(region)])
    mixed = create_mixed_system(
        case.topology,
        case.system,
        Hamiltonian([Term(potential, region, embedding="electrostatic")]),
        ml_backend="pythonforce",
    )
    plain = system_energy_and_forces(case.system, case.positions)
    found = system_energy_and_forces(mixed.system, case.positions)
    state_same(truth, "region of fixed charges against plain PME, each shape of box", found, plain, PLAIN_TOLERANCE)


@pytest.mark.parametrize("shape", SHAPES[:3])
def test_the_reach_of_the_short_range_part_is_long_enough(truth, shape):
    case = chains_among_ions(shape, 1, 2)
    (region,) = regions_of(case)
    mixed = create_mixed_system(
        case.topology,
        case.system,
        Hamiltonian([Term(fixed(case.charges[: len(region)]), region, embedding="electrostatic")]),
        ml_backend="pythonforce",
    )
    plain = system_energy_and_forces(case.system, case.positions)
    found = system_energy_and_forces(mixed.system, case.positions)
    state_same(truth, "the same with the default reach of the short range", found, plain, TRUNCATION_TOLERANCE)


@pytest.mark.parametrize("level", ["ML", "MM", "both"])
@pytest.mark.parametrize("shape", ["triclinic", None])
def test_two_regions_of_fixed_charges_count_each_other_once(far_reach, shape, level):
    case = chains_among_ions(shape, 1, 2, n_chains=2)
    terms = []
    for k, region in enumerate(regions_of(case)):
        charges = case.charges[list(region.atoms)]
        learned = level == "ML" or (level == "both" and k == 0)
        potential = fixed(charges) if learned else fixed_in_openmm(charges)
        terms.append(Term(potential, region, embedding="electrostatic"))
    mixed = create_mixed_system(case.topology, case.system, Hamiltonian(terms), ml_backend="pythonforce")
    plain = system_energy_and_forces(case.system, case.positions)
    assert_same(system_energy_and_forces(mixed.system, case.positions), plain, PLAIN_TOLERANCE)


def test_a_scaled_box_has_the_energy_and_forces_of_the_plain_force_field(far_reach):
    case = chains_among_ions("triclinic", 1, 2)
    (region,) = regions_of(case)
    mixed = create_mixed_system(
        case.topology,
        case.system,
        Hamiltonian([Term(fixed(case.charges[: len(region)]), region, embedding="electrostatic")]),
        ml_backend="pythonforce",
    )
    seen = []
    for system in (case.system, mixed.system):
        context = make_context(system, case.positions)
        seen.append([])
        for factor in (1.0, 1.03, 0.97, 1.0):  # as a barostat does, and back
            context.setPeriodicBoxVectors(*(factor * case.box))
            context.setPositions(factor * case.positions)
            seen[-1].append(energy_and_forces(context))
    for plain, found in zip(*seen, strict=True):
        assert_same(found, plain, PLAIN_TOLERANCE)
    assert seen[1][0][0] == seen[1][3][0] != seen[1][1][0]


@pytest.mark.parametrize("ion_charge", [0, 2], ids=["neutral", "charged"])
@pytest.mark.parametrize("shape", ["cubic", "octahedron"])
def test_the_pressure_is_smooth_and_that_of_the_plain_force_field(truth, far_reach, shape, ion_charge):
    case = chains_among_ions(shape, 0, ion_charge)
    (region,) = regions_of(case)
    mixed = create_mixed_system(
        case.topology,
        case.system,
        Hamiltonian([Term(fixed(case.charges[: len(region)]), region, embedding="electrostatic")]),
        ml_backend="pythonforce",
    )
    volume = np.linalg.det(case.box)
    factors = 1.0 + 0.01 * np.linspace(-1.0, 1.0, 9)
    # Round-off of the energies over the steps of the volume.
    pressures = []
    for system in (case.system, mixed.system):
        context = make_context(system, case.positions)
        energies = []
        for factor in factors:
            context.setPeriodicBoxVectors(*(factor * case.box))
            context.setPositions(factor * case.positions)
            energies.append(context.getState(energy=True).getPotentialEnergy()._value)
        pressures.append(-np.diff(energies) / np.diff(volume * factors**3))
    plain, found = pressures
    error = abs(found - plain).max() / abs(plain).max()
    truth.below("the same, box scaled by 1 %: pressure", error, PRESSURE_TOLERANCE, "relative")
    # A cubic polynomial takes all but the fourth order of the 1 % from a smooth function; a step would remain.
    middles = np.linspace(-1.0, 1.0, 8)
    rest = found - np.polynomial.Polynomial.fit(middles, found, 3)(middles)
    assert abs(rest).max() < SMOOTHNESS * abs(found).max()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", ["cubic", "triclinic", None])
def test_mixed_precision_has_the_error_of_single_precision(truth, shape, backend):
    case = chains_among_ions(shape, 1, 2)
    (region,) = regions_of(case)
    potential = MLPotential(
        Polarisable(case.charges[: len(region)]), elements=[6], embeddings=["electrostatic"], charge=None
    )
    found = []
    for precision in ("mixed", "double"):
        mixed = create_mixed_system(
            case.topology,
            case.system,
            Hamiltonian([Term(potential, region, embedding="electrostatic")]),
            ml_backend=backend,
            ml_precision=precision,
        )
        found.append(system_energy_and_forces(mixed.system, case.positions, groups={mixed.force_group("chain0/ML")}))
    state_same(truth, 'ML term with `ml_precision="mixed"` against "double"', *found, SINGLE_TOLERANCE)
    assert (found[0][0] == found[1][0]) == (shape is None)  # without a box there is no mesh


def test_a_precision_that_there_is_not_is_refused():
    case = chains_among_ions(None)
    (region,) = regions_of(case)
    hamiltonian = Hamiltonian([Term(fixed(case.charges[: len(region)]), region, embedding="electrostatic")])
    with pytest.raises(HamiltonianError, match="ml_precision is one of 'double', 'mixed', got 'single'"):
        create_mixed_system(case.topology, case.system, hamiltonian, ml_precision="single")


@pytest.mark.parametrize(
    ("method", "tolerance"), [(openmm.NonbondedForce.LJPME, 1e-8), (openmm.NonbondedForce.Ewald, 2e-5)]
)
@pytest.mark.parametrize("ion_charge", [0, 2], ids=["neutral", "charged"])
def test_other_ways_of_summing_give_the_plain_force_field_back(far_reach, method, tolerance, ion_charge):
    # LJPME has the same mesh for charges. Ewald's sum of OpenMM has none: the mesh's own error remains.
    case = chains_among_ions("cubic", 0, ion_charge)
    force = nonbonded_force(case.system)
    force.setNonbondedMethod(method)
    if method == openmm.NonbondedForce.Ewald:
        force.setPMEParameters(0.0, 0, 0, 0)
        force.setEwaldErrorTolerance(1e-7)
    else:
        force.setLJPMEParameters(2.5, 25, 25, 25)
    (region,) = regions_of(case)
    mixed = create_mixed_system(
        case.topology,
        case.system,
        Hamiltonian([Term(fixed(case.charges[: len(region)]), region, embedding="electrostatic")]),
        ml_backend="pythonforce",
    )
    plain = system_energy_and_forces(case.system, case.positions)
    assert_same(system_energy_and_forces(mixed.system, case.positions), plain, tolerance)


def embedded_module(case, atoms, model, scheme="rcd", charge=0):
    """A term as torch module: positions and box in nm to energy and forces."""
    region = Region("site", atoms, charge)
    n_links = sum((a in atoms) != (b in atoms) for a, b in chain_bonds(case))
    potential = MLPotential(
        model, atomic_numbers=[6] * len(atoms) + [1] * n_links, embeddings=["electrostatic"], charge=None
    )
    mixed = create_mixed_system(
        case.topology,
        case.system,
        Hamiltonian([Term(potential, region, embedding="electrostatic", boundary_charges=scheme)]),
        ml_backend="pythonforce",
    )
    layout = mixed.terms["site/ML"].layout
    return EmbeddedTermModule(layout, potential.module), layout


def chain_bonds(case):
    return [(bond[0].index, bond[1].index) for bond in case.topology.bonds()]


WHOLE, CUT = (0, 1, 2, 3, 4, 5), (0, 1, 2, 3)
DIFFERENCE_CASES = {
    "cubic box": ("cubic", 6.0, WHOLE, "rcd"),
    "truncated octahedron": ("octahedron", 6.0, WHOLE, "rcd"),
    "several images inside the cutoff": ("triclinic", 1.5, WHOLE, "rcd"),
    "no box": (None, 6.0, WHOLE, "rcd"),
    "cut bonds, rcd": ("triclinic", 6.0, CUT, "rcd"),
    "cut bonds, shift": ("triclinic", 6.0, CUT, "shift"),
    "cut bonds, rc, no box": (None, 6.0, CUT, "rc"),
    "cut bonds, zero, several images": ("cubic", 1.5, CUT, "zero"),
}


@pytest.mark.parametrize("name", DIFFERENCE_CASES)
def test_forces_of_a_polarisable_model_are_the_derivative_of_its_energy(name):
    shape, alpha, atoms, scheme = DIFFERENCE_CASES[name]
    case = chains_among_ions(shape, 1, 2, alpha=alpha)
    n_sites = len(atoms) + (atoms == CUT)
    model = Polarisable(np.linspace(-0.6, 0.8, n_sites))
    module, layout = embedded_module(case, atoms, model, scheme, charge=1)
    assert len(layout.link_bonds) == n_sites - len(atoms)
    _, forces = evaluate(module, case.positions, case.box)
    outside = np.arange(6, len(case.charges))
    away = nearest_images(case.positions[outside] - case.positions[2], case.box)
    order = outside[np.argsort(np.linalg.norm(away, axis=1))]
    rng = np.random.default_rng(4)
    # Each coordinate of the chain with the hosts of a cut bond, then near and far atoms in random directions.
    directions = [np.eye(len(forces) * 3)[k].reshape(-1, 3) for k in range(18)]
    for group in (order[:4], order[-4:], order):
        for _ in range(2):
            direction = np.zeros_like(forces)
            direction[group] = rng.standard_normal((len(group), 3))
            directions.append(direction)
    for direction in directions:
        moved = np.abs(direction).sum(1) > 0
        expected = -central_difference(lambda x: evaluate(module, x, case.box)[0], case.positions, direction, STEP)
        # Without a charge, as the outside host has in the scheme "zero", an atom has no force of its own.
        scale = max(np.linalg.norm(forces[moved], axis=1).max(), 1e-4 * abs(forces).max())
        assert (forces * direction).sum() == pytest.approx(expected, abs=DIFFERENCE_TOLERANCE * scale)


def test_without_a_box_the_net_force_vanishes():
    case = chains_among_ions(None)
    module, _ = embedded_module(case, WHOLE, Polarisable(np.linspace(-0.6, 0.6, 6)))
    _, forces = evaluate(module, case.positions, case.box)
    assert abs(forces.sum(0)).max() < NO_NET_FORCE * abs(forces).max()


@pytest.mark.parametrize("charge", [0, 1])
def test_the_result_does_not_depend_on_the_splitting(truth, charge):
    results = []
    for factor, grid in ((1.0, (54, 54, 60)), (1.6, (90, 90, 96))):
        case = chains_among_ions("triclinic", charge, 2 * charge, alpha=1.6 * factor, grid=grid)
        model = Polarisable(np.linspace(-0.6, 0.8, 6))
        module, _ = embedded_module(case, WHOLE, model, charge=charge)
        results.append(evaluate(module, case.positions, case.box))
    state_same(truth, "polarisable region, alpha times 1.6 on fine meshes", *results[::-1], SPLITTING_TOLERANCE)


@pytest.mark.parametrize("atoms", [WHOLE, CUT], ids=["whole", "cut"])
@pytest.mark.parametrize("shape", ["octahedron", None])
def test_the_path_of_arrays_equals_the_path_of_torch(shape, atoms):
    case = chains_among_ions(shape, 0, 2)
    region = Region("site", atoms)
    charges = np.array([0.3, -0.8, 0.4, 0.1, 0.5, -0.2])[: len(atoms) + (atoms == CUT)]
    numbers = [6] * len(atoms) + [1] * (atoms == CUT)
    found = []
    for potential in (fixed(charges, numbers), fixed_in_openmm(charges)):
        hamiltonian = Hamiltonian([Term(potential, region, embedding="electrostatic")])
        mixed = create_mixed_system(case.topology, case.system, hamiltonian, ml_backend="pythonforce")
        (name,) = mixed.terms
        group = {mixed.force_group(name)}
        found.append(system_energy_and_forces(mixed.system, case.positions, groups=group))
    assert_same(found[1], found[0], SAME_PHYSICS)


def test_wrapping_every_atom_on_its_own_changes_nothing():
    case = chains_among_ions("triclinic", 1, 2)
    module, _ = embedded_module(case, WHOLE, Polarisable(np.linspace(-0.6, 0.8, 6)), charge=1)
    rng = np.random.default_rng(2)
    moved = case.positions + rng.integers(-2, 3, case.positions.shape) @ case.box
    assert_same(evaluate(module, moved, case.box), evaluate(module, case.positions, case.box), 1e2 * SAME_PHYSICS)


def test_the_gradient_and_curvature_of_the_potential_are_its_derivatives():
    case = chains_among_ions("triclinic", 1, 2)
    _, layout = embedded_module(case, WHOLE, FixedCharges(np.ones(6)), charge=1)
    field = SurroundingsField(layout)
    prepared = field.prepare(*tensors_of(Geometry(case.positions, case.box).in_bohr()))
    sites = prepared.sites
    _, gradient, curvature, *_ = field.potential(prepared)
    step = 1e-4
    for axis in range(3):
        sides = []
        for sign in (1.0, -1.0):
            # One site at a time: the region's own reference charges stay where they are.
            value, slope = [], []
            for k in range(len(sites)):
                probe = sites[k : k + 1].clone()
                probe[0, axis] += sign * step
                v, g = potential_at(field, prepared, probe)
                value.append(v)
                slope.append(g)
            sides.append((torch.cat(value), torch.cat(slope)))
        numerical = (sides[0][0] - sides[1][0]) / (2.0 * step)
        scale = float(gradient.abs().max())
        np.testing.assert_allclose(gradient[:, axis], numerical, rtol=0, atol=DIFFERENCE_TOLERANCE * scale)
        numerical = (sides[0][1] - sides[1][1]) / (2.0 * step)
        scale = float(curvature.abs().max())
        np.testing.assert_allclose(curvature[:, :, axis], numerical, rtol=0, atol=DIFFERENCE_TOLERANCE * scale)


def potential_at(field, prepared, points):
    """The potential at any points, put together from its definition: screened, smeared, smooth."""
    delta = points[:, None] - prepared.near_positions[None]
    r = delta.norm(dim=-1)
    value, first, _ = screened_kernel(r, field.alpha)
    q = prepared.near_charges
    total = value @ q
    gradient = ((first / r * q)[:, :, None] * delta).sum(1)
    delta = points[:, None] - prepared.sites[None, : field.n_atoms]
    value, slope, _ = smeared_kernel(delta.norm(dim=-1), field.alpha)
    total = total - value @ field.own_charges
    gradient = gradient - ((slope * field.own_charges)[:, :, None] * delta).sum(1)
    smooth, smooth_gradient = field.smooth_potential(prepared, points)
    return total + smooth, gradient + smooth_gradient


def test_the_field_of_one_geometry_is_not_changed_by_that_of_another():
    case = chains_among_ions("triclinic", 1, 2)
    _, layout = embedded_module(case, WHOLE, Polarisable(np.ones(6)), charge=1)
    field = SurroundingsField(layout)
    geometry = Geometry(case.positions, case.box).in_bohr()
    prepared = field.prepare(*tensors_of(geometry))
    charges, dipoles = torch.ones(6, dtype=torch.float64), torch.ones(6, 3, dtype=torch.float64)

    def everything():
        potential = field.potential(prepared)
        adjoint = field.adjoint(prepared, potential, charges, dipoles)
        return [
            *potential,
            adjoint,
            *field.reference_energy(prepared),
            field.source_energies(prepared, charges, dipoles),
        ]

    before = everything()
    other = field.prepare(*tensors_of(Geometry(geometry.positions * 1.01, geometry.box * 1.01)))
    assert not torch.equal(field.potential(other).value, before[0])
    for found, expected in zip(everything(), before, strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("x", [0.0, 1e-9, 1e-4, 0.05, 0.0999999, 0.1000001, 0.3, 1.0, 2.0])
@pytest.mark.parametrize("splitting", [0.3, 2.0])
def test_the_smeared_kernel_is_smooth_down_to_zero(splitting, x):
    value, slope, second = smeared_kernel(*torch.tensor([[x / splitting], [splitting]], dtype=torch.float64))
    coefficient = 2.0 * splitting / math.sqrt(math.pi)
    # erf(x)/x = 2/sqrt(pi) sum (-1)^n x^(2n) / (n! (2n+1)), and derivatives term by term.
    terms = [((-1) ** n / (math.factorial(n) * (2 * n + 1)), 2 * n) for n in range(40)]
    expected = math.fsum(a * x**p for a, p in terms)
    expected_slope = math.fsum(a * p * x ** (p - 2) for a, p in terms[1:])
    expected_second = math.fsum(a * p * (p - 1) * x ** (p - 2) for a, p in terms[1:])
    assert float(value) == pytest.approx(coefficient * expected, rel=KERNEL_TOLERANCE)
    scale = coefficient * splitting**2
    assert float(slope) == pytest.approx(scale * expected_slope, rel=KERNEL_TOLERANCE)
    assert float(second) == pytest.approx(scale * expected_second, abs=KERNEL_TOLERANCE * scale)


def test_the_slope_alone_is_that_of_the_smeared_kernel_at_all_distances():
    r = torch.tensor([[0.0, 1e-6, 0.3], [0.34, 2.0, 30.0]], dtype=torch.float64)
    expected = smeared_kernel(r, torch.tensor(0.3, dtype=torch.float64))[1]
    np.testing.assert_array_equal(smeared_radial(r, 0.3), expected)


@pytest.mark.parametrize("splitting", [0.0, 0.3])
def test_the_screened_kernel_has_the_derivatives_that_it_says(splitting):
    r = torch.tensor([0.5, 2.0, 7.0], dtype=torch.float64, requires_grad=True)
    value, first, second = screened_kernel(r, torch.tensor(splitting, dtype=torch.float64))
    (slope,) = torch.autograd.grad(value.sum(), r, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), r)
    np.testing.assert_allclose(value.detach(), torch.erfc(splitting * r.detach()) / r.detach(), rtol=1e-15)
    np.testing.assert_allclose(first.detach(), slope.detach(), rtol=SAME_PHYSICS)
    np.testing.assert_allclose(second.detach(), curvature, rtol=SAME_PHYSICS)
