"""Regions of fixed and polarisable charges among Gaussian charges, against sums written out here."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.special import erfc

from qmmlmm import Hamiltonian, MLPotential, Region, Term, create_mixed_system
from qmmlmm.embedding.evaluated_term import EvaluatedTerm
from qmmlmm.embedding.torch_term import EmbeddedTermModule
from qmmlmm.errors import RegionError
from qmmlmm.geometry import Geometry
from qmmlmm.mm.term_layouts import build_layouts, particle_labels, resolve_regions
from qmmlmm.units import BOHR_IN_NM, HARTREE_IN_KJ_PER_MOL
from tests.contexts import system_energy_and_forces
from tests.embedding.torch_modules import evaluate
from tests.finite_differences import central_difference
from tests.toy_potentials import FixedCharges, Polarisable, fixed_in_openmm
from tests.toy_systems import chains_among_ions, nearest_images

COULOMB = HARTREE_IN_KJ_PER_MOL * BOHR_IN_NM  # kJ nm/(mol e^2)
SAME_SUM = 1e-12  # of the energy and largest force of the term; the same pairs in another order
# What is cut off beside the mesh: erfc(4.5) = 2e-10 of single pairs.
SAME_WITHOUT_MESH = 1e-9
SPLITTING_TOLERANCE = 1e-7  # relative; the error of the meshes used
STEP = 2e-5  # nm
DIFFERENCE_TOLERANCE = 1e-7  # of the largest force on the atoms that move
NO_NET_FORCE = 1e-12  # of the largest force; round-off

WHOLE, CUT = (0, 1, 2, 3, 4, 5), (0, 1, 2, 3)
WIDTH = 0.13  # nm; the closest ions are 0.22 to 0.35 nm away, where erfc(r/w) is 2e-2 to 1e-4
BROAD = 0.19  # nm, more than 1/alpha of the box: erfc(r/w) ends after erfc(alpha r)


def potential_of(level, charges):
    numbers = [6] * 4 + [1] if len(charges) == 5 else [6] * 6
    if level == "ML":
        model = FixedCharges(charges)
        return MLPotential(model, atomic_numbers=numbers, embeddings=["electrostatic"], charge=None)
    return fixed_in_openmm(charges)


def term_result(case, level, atoms, charges, smeared, scheme="rcd"):
    """Energy and forces of the term, kJ/mol and kJ/(mol nm), and its layout."""
    potential = potential_of(level, charges)
    term = Term(
        potential,
        Region("site", atoms),
        embedding="electrostatic",
        boundary_charges=scheme,
        smeared_charges=smeared,
    )
    layout = layout_of(case, term)
    if level == "ML":
        return evaluate(EmbeddedTermModule(layout, potential.module), case.positions, case.box), layout
    return EvaluatedTerm(layout, potential).compute(Geometry(case.positions, case.box)), layout


def layout_of(case, term):
    """The term's layout; without a mixed System there is nothing to be compiled."""
    labels = particle_labels(case.topology)
    resolved = resolve_regions([term.region], case.topology, case.system, labels)
    return build_layouts(case.system, Hamiltonian([term]), resolved, labels)[0]


def difference_to_points(case, layout, charges, widths, periodic):
    """What smearing changes: minus q_i q_j erfc(r/w)/r of sites and sources, images included, and its forces.

    Written for regions whose link atom sits at ratio g of its bond.
    """
    positions = case.positions
    n = len(positions)
    sites = np.zeros((len(charges), n))
    sites[np.arange(len(layout.atoms)), layout.atoms] = 1.0
    for k, (host, outside) in enumerate(layout.link_bonds):
        sites[len(layout.atoms) + k, layout.atoms[host]] = 1.0 - layout.link_ratios[k]
        sites[len(layout.atoms) + k, outside] = layout.link_ratios[k]
    sources = np.eye(n + len(layout.surroundings.derived_fractions), n)
    for k, ((origin, towards), f) in enumerate(
        zip(layout.surroundings.derived_bonds, layout.surroundings.derived_fractions, strict=True)
    ):
        sources[n + k] = (1.0 - f) * np.eye(n)[origin] + f * np.eye(n)[towards]
    inside = set(layout.atoms)
    used = np.array([k for k in range(len(sources)) if k not in inside])
    w = widths[used]
    product = COULOMB * charges[:, None] * layout.surroundings.source_charges[used][None, :]
    shifts = np.array(list(itertools.product((-1, 0, 1), repeat=3))) @ case.box if periodic else np.zeros((1, 3))
    energy, by_site, by_source = 0.0, np.zeros((len(charges), 3)), np.zeros((len(used), 3))
    for shift in shifts:
        delta = (sites @ positions)[:, None] - (sources[used] @ positions)[None] - shift
        r = np.linalg.norm(delta, axis=-1)
        x = r / np.where(w > 0, w, 1.0)
        value = np.where(w > 0, -erfc(x) / r, 0.0)
        slope = np.where(w > 0, erfc(x) / r**2 + 2.0 / np.sqrt(np.pi) * x / r**2 * np.exp(-(x**2)), 0.0)
        energy += (product * value).sum()
        pull = (product * slope / r)[..., None] * delta
        by_site += pull.sum(axis=1)
        by_source -= pull.sum(axis=0)
    return energy, -(sites.T @ by_site + sources[used].T @ by_source)


# Molecules that a box cuts would need their nearest images here.
def unwrapped(shape):
    case = chains_among_ions(shape, 0, 2)
    case.positions[:6] = case.positions[2] + nearest_images(case.positions[:6] - case.positions[2], case.box)
    return case


@pytest.mark.parametrize("level", ["ML", "MM"])
@pytest.mark.parametrize("shape", [None, "cubic", "triclinic"])
@pytest.mark.parametrize("width", [WIDTH, BROAD])
@pytest.mark.parametrize(("atoms", "scheme"), [(WHOLE, "rcd"), (CUT, "rcd"), (CUT, "shift")])
def test_smearing_changes_energy_and_forces_by_the_sum_over_pairs(level, shape, width, atoms, scheme):
    case = unwrapped(shape)
    charges = np.array([0.3, -0.8, 0.4, 0.1, 0.5, -0.2])[: len(atoms) + (atoms == CUT)]
    points, _ = term_result(case, level, atoms, charges, None, scheme)
    found, layout = term_result(case, level, atoms, charges, width, scheme)
    assert (len(layout.link_bonds) == 1) == (atoms == CUT)
    widths = np.full(len(layout.surroundings.source_charges), width)
    energy, forces = difference_to_points(case, layout, charges, widths, shape is not None)
    tolerance = SAME_SUM if shape is None else SAME_WITHOUT_MESH
    scale = abs(points[1]).max()
    assert found[0] - points[0] == pytest.approx(energy, rel=0, abs=tolerance * abs(points[0]))
    np.testing.assert_allclose(found[1] - points[1], forces, rtol=0, atol=tolerance * scale)
    # There is something to be seen.
    assert abs(energy) > 1e-6 * abs(points[0])
    assert abs(forces).max() > 1e-5 * scale


@pytest.mark.parametrize("level", ["ML", "MM"])
@pytest.mark.parametrize("shape", [None, "triclinic"])
def test_single_charges_may_have_widths_of_their_own(level, shape):
    case = unwrapped(shape)
    charges = np.array([0.3, -0.8, 0.4, 0.1, 0.5])
    chosen = {4: 0.08, 5: 0.05, 7: 0.12, 11: 0.1, 30: 0.19}
    points, _ = term_result(case, level, CUT, charges, None)
    found, layout = term_result(case, level, CUT, charges, chosen)
    widths = np.zeros(len(layout.surroundings.source_charges))
    widths[list(chosen)] = list(chosen.values())
    assert layout.surroundings.derived_bonds.tolist() == [[4, 5]]
    widths[-1] = 0.08
    energy, forces = difference_to_points(case, layout, charges, widths, shape is not None)
    tolerance = SAME_SUM if shape is None else SAME_WITHOUT_MESH
    assert found[0] - points[0] == pytest.approx(energy, rel=0, abs=tolerance * abs(points[0]))
    np.testing.assert_allclose(found[1] - points[1], forces, rtol=0, atol=tolerance * abs(points[1]).max())


@pytest.mark.parametrize("level", ["ML", "MM"])
@pytest.mark.parametrize("shape", [None, "cubic"])
def test_very_narrow_charges_are_points_and_a_far_charge_is_a_point(level, shape):
    case = unwrapped(shape)
    charges = np.array([0.3, -0.8, 0.4, 0.1, 0.5, -0.5])
    points, _ = term_result(case, level, WHOLE, charges, None)
    away = nearest_images(case.positions[6:, None] - case.positions[None, :6], case.box)
    farthest = 6 + int(np.linalg.norm(away, axis=2).min(axis=1).argmax())
    for smeared in (1e-4, {farthest: 0.1}):
        found, _ = term_result(case, level, WHOLE, charges, smeared)
        assert found[0] == pytest.approx(points[0], rel=SAME_SUM)
        np.testing.assert_allclose(found[1], points[1], rtol=0, atol=SAME_SUM * abs(points[1]).max())


@pytest.mark.parametrize("level", ["ML", "MM"])
@pytest.mark.parametrize("shape", [None, "triclinic"])
def test_two_regions_that_smear_each_other_count_once(level, shape):
    # Second chain close to the first.
    case = chains_among_ions(shape, 0, 2, n_chains=2)
    for chain in (slice(0, 6), slice(6, 12)):
        third = case.positions[chain.start + 2].copy()
        case.positions[chain] = third + nearest_images(case.positions[chain] - third, case.box)
    case.positions[6:12] += case.positions[2] - case.positions[8] + np.array([0.0, 0.05, 0.25])

    def result(smeared):
        terms = []
        for k, atoms in enumerate(case.chains):
            potential = potential_of(level, case.charges[list(atoms)])
            region = Region(f"chain{k}", atoms)
            terms.append(Term(potential, region, embedding="electrostatic", smeared_charges=smeared))
        mixed = create_mixed_system(case.topology, case.system, Hamiltonian(terms), ml_backend="pythonforce")
        return system_energy_and_forces(mixed.system, case.positions)

    points, found = result(None), result(WIDTH)
    # All pairs of the two chains with ions, and of the chains with each other.
    energy, forces = 0.0, np.zeros_like(case.positions)
    n = len(case.positions)
    pairs = [(i, j) for i in range(12) for j in range(n) if j >= 12 or (i < 6 <= j)]
    shifts = np.array(list(itertools.product((-1, 0, 1), repeat=3))) @ case.box if shape else np.zeros((1, 3))
    for i, j in pairs:
        delta = case.positions[i] - case.positions[j] - shifts
        r = np.linalg.norm(delta, axis=1)
        product = COULOMB * case.charges[i] * case.charges[j]
        x = r / WIDTH
        energy -= (product * erfc(x) / r).sum()
        slope = product * (erfc(x) / r**2 + 2.0 / np.sqrt(np.pi) * x / r**2 * np.exp(-(x**2)))
        force = -((slope / r)[:, None] * delta).sum(axis=0)
        forces[i] += force
        forces[j] -= force
    assert abs(forces[6:12]).max() > 1e-3 * abs(points[1]).max()
    assert found[0] - points[0] == pytest.approx(energy, rel=0, abs=SAME_WITHOUT_MESH * abs(points[0]))
    np.testing.assert_allclose(found[1] - points[1], forces, rtol=0, atol=SAME_WITHOUT_MESH * abs(points[1]).max())


def module_of(case, atoms, scheme, smeared):
    model = Polarisable(np.linspace(-0.6, 0.8, len(atoms) + (atoms == CUT)))
    potential = MLPotential(model, elements=[1, 6], embeddings=["electrostatic"], charge=None)
    term = Term(
        potential, Region("site", atoms), embedding="electrostatic", boundary_charges=scheme, smeared_charges=smeared
    )
    return EmbeddedTermModule(layout_of(case, term), potential.module)


@pytest.mark.parametrize(
    ("shape", "atoms", "scheme", "smeared"),
    [
        ("octahedron", WHOLE, "rcd", WIDTH),
        ("triclinic", CUT, "rcd", BROAD),
        ("cubic", CUT, "shift", {4: 0.1, 5: 0.06}),
        (None, CUT, "rc", WIDTH),
    ],
)
def test_forces_of_a_polarisable_model_are_the_derivative_of_its_energy(shape, atoms, scheme, smeared):
    case = chains_among_ions(shape, 0, 2)
    module = module_of(case, atoms, scheme, smeared)
    _, forces = evaluate(module, case.positions, case.box)
    away = nearest_images(case.positions[6:, None] - case.positions[None, :6], case.box)
    near = 6 + np.argsort(np.linalg.norm(away, axis=2).min(axis=1))[:4]
    for atom, axis in itertools.product([*range(6), *near], range(3)):
        direction = np.zeros_like(case.positions)
        direction[atom, axis] = 1.0
        scale = max(np.linalg.norm(forces[atom]), 1e-4 * abs(forces).max())
        expected = -central_difference(lambda x: evaluate(module, x, case.box)[0], case.positions, direction, STEP)
        assert forces[atom, axis] == pytest.approx(expected, abs=DIFFERENCE_TOLERANCE * scale)


def test_without_a_box_the_net_force_vanishes():
    case = chains_among_ions(None)
    _, forces = evaluate(module_of(case, CUT, "rcd", WIDTH), case.positions, case.box)
    assert abs(forces.sum(0)).max() < NO_NET_FORCE * abs(forces).max()


def test_the_result_does_not_depend_on_the_splitting():
    results = []
    for factor, grid in ((1.0, (54, 54, 60)), (1.6, (90, 90, 96))):
        case = chains_among_ions("triclinic", 0, 2, alpha=1.6 * factor, grid=grid)
        results.append(evaluate(module_of(case, CUT, "rcd", BROAD), case.positions, case.box))
    assert results[1][0] == pytest.approx(results[0][0], rel=SPLITTING_TOLERANCE)
    tolerance = SPLITTING_TOLERANCE * abs(results[0][1]).max()
    np.testing.assert_allclose(results[1][1], results[0][1], rtol=0, atol=tolerance)


def test_a_width_of_an_atom_of_the_region_is_refused():
    case = chains_among_ions(None)
    term = Term(
        fixed_in_openmm(np.zeros(6)), Region("site", WHOLE), embedding="electrostatic", smeared_charges={3: 0.05}
    )
    with pytest.raises(RegionError, match="are in the region: 3"):
        create_mixed_system(case.topology, case.system, Hamiltonian([term]))
