from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qmmlmm.coupling.layout import Surroundings, TermLayout
from qmmlmm.coupling.potential import RegionSpecification
from qmmlmm.embedding.region_geometry import (
    AROUND,
    RegionGeometry,
    nearest_displacements,
    nearest_image,
    shortest_lattice_vector,
)
from qmmlmm.errors import EvaluationError

LATTICE_ROUND_OFF = 1e-11  # bohr; coordinates of up to 300 bohr in double precision
ROUND_OFF = 1e-13  # relative; a linear map, applied in two ways

SHORTEST_EDGE = 20.0  # bohr
ATOMS = (4, 7, 1, 9, 2)  # not in order, and not at the front
LINKS = ((1, 5), (4, 8), (2, 0))  # position in ATOMS, outside particle
RATIOS = (0.71, 0.64, 0.0)
DISTANCES = (0.0, 0.0, 2.06)  # bohr
DERIVED_BONDS = ((5, 3), (5, 0), (8, 6), (8, 6))
FRACTIONS = (0.5, 0.5, 0.06, -0.06)
N_PARTICLES = 10


def layout(periodic=True, surroundings=True, links=LINKS):
    n_links = len(links)
    around = Surroundings(
        source_charges=np.zeros(N_PARTICLES + len(FRACTIONS)),
        derived_bonds=np.array(DERIVED_BONDS),
        derived_fractions=np.array(FRACTIONS),
        reference_charges=np.zeros(N_PARTICLES),
        splitting=0.3,
        grid=(8, 8, 8),
        short_range_cutoff=12.0,
    )
    return TermLayout(
        specification=RegionSpecification("site", np.full(len(ATOMS) + n_links, 6), 0, 1),
        coefficient=1.0,
        n_particles=N_PARTICLES,
        atoms=np.array(ATOMS),
        anchor=2,
        link_bonds=np.array(links, dtype=np.int64).reshape(-1, 2),
        link_ratios=np.array(RATIOS[:n_links]),
        link_distances=np.array(DISTANCES[:n_links]),
        periodic=periodic,
        surroundings=around if surroundings else None,
    )


@st.composite
def reduced_boxes(draw):
    """Box vectors in the form that OpenMM asks for, not thinner than SHORTEST_EDGE."""
    a, b, c = (draw(st.floats(SHORTEST_EDGE, 60.0)) for _ in range(3))
    bx, cx, cy = (draw(st.floats(-0.5, 0.5)) for _ in range(3))
    return np.array([[a, 0, 0], [bx * a, b, 0], [cx * a, cy * b, c]])


def compact_positions(seed):
    """All particles within 0.4 of the shortest edge around the anchor."""
    rng = np.random.default_rng(seed)
    directions = rng.standard_normal((N_PARTICLES, 3))
    directions /= np.linalg.norm(directions, axis=1)[:, None]
    positions = directions * rng.uniform(1.0, 0.2 * SHORTEST_EDGE, (N_PARTICLES, 1))
    positions[ATOMS[2]] = 0.0
    return positions + rng.uniform(-50, 50, 3)


def tensors(*arrays):
    return [torch.tensor(np.asarray(a, dtype=float)) for a in arrays]


shifts = st.lists(st.tuples(*[st.integers(-3, 3)] * 3), min_size=N_PARTICLES, max_size=N_PARTICLES)


@settings(deadline=None, max_examples=60)
@given(reduced_boxes(), shifts, st.integers(0, 1000))
def test_wrapping_particles_into_other_images_moves_the_region_as_a_whole(box, images, seed):
    geometry = RegionGeometry(layout())
    positions = compact_positions(seed)
    moved = positions + np.array(images) @ box
    x, y, vectors = tensors(positions, moved, box)
    expected = geometry.sites(x, vectors).numpy() + images[ATOMS[2]] @ box
    np.testing.assert_allclose(geometry.sites(y, vectors).numpy(), expected, rtol=0, atol=LATTICE_ROUND_OFF)


@settings(deadline=None, max_examples=60)
@given(reduced_boxes(), shifts, st.integers(0, 1000))
def test_wrapping_particles_moves_derived_charges_with_their_origin(box, images, seed):
    geometry = RegionGeometry(layout())
    positions = compact_positions(seed)
    x, y, vectors = tensors(positions, positions + np.array(images) @ box, box)
    origins = [origin for origin, _ in DERIVED_BONDS]
    expected = geometry.sources(x, vectors).numpy()[N_PARTICLES:] + np.array(images)[origins] @ box
    found = geometry.sources(y, vectors).numpy()
    np.testing.assert_array_equal(found[:N_PARTICLES], y.numpy())
    np.testing.assert_allclose(found[N_PARTICLES:], expected, rtol=0, atol=LATTICE_ROUND_OFF)


@settings(deadline=None, max_examples=60)
@given(reduced_boxes(), st.tuples(*[st.integers(-3, 3)] * 3), st.integers(0, 1000))
def test_the_nearest_image_of_a_short_vector_is_found_in_any_box(box, image, seed):
    rng = np.random.default_rng(seed)
    short = rng.standard_normal((20, 3))
    short *= 0.49 * SHORTEST_EDGE / np.linalg.norm(short, axis=1)[:, None]
    x, vectors = tensors(short + np.array(image) @ box, box)
    np.testing.assert_allclose(nearest_image(x, vectors).numpy(), short, rtol=0, atol=LATTICE_ROUND_OFF)


@pytest.mark.parametrize("periodic", [True, False])
def test_sites_are_atoms_in_order_and_link_atoms_on_their_bonds(periodic):
    positions = compact_positions(4)
    x, vectors = tensors(positions, 40.0 * np.eye(3))
    sites = RegionGeometry(layout(periodic)).sites(x, vectors if periodic else None).numpy()
    np.testing.assert_allclose(sites[: len(ATOMS)], positions[list(ATOMS)], rtol=0, atol=LATTICE_ROUND_OFF)
    for site, (q1, m1), ratio, distance in zip(sites[len(ATOMS) :], LINKS, RATIOS, DISTANCES, strict=True):
        host = positions[ATOMS[q1]]
        bond = positions[m1] - host
        expected = host + (ratio or distance / np.linalg.norm(bond)) * bond
        np.testing.assert_allclose(site, expected, rtol=0, atol=LATTICE_ROUND_OFF)


def test_derived_charges_sit_at_their_fraction_of_the_bond():
    positions = compact_positions(4)
    x, vectors = tensors(positions, 40.0 * np.eye(3))
    sources = RegionGeometry(layout()).sources(x, vectors).numpy()
    for place, (origin, towards), fraction in zip(sources[N_PARTICLES:], DERIVED_BONDS, FRACTIONS, strict=True):
        expected = (1 - fraction) * positions[origin] + fraction * positions[towards]
        np.testing.assert_allclose(place, expected, rtol=0, atol=LATTICE_ROUND_OFF)


def test_without_surroundings_the_sources_are_the_particles():
    x, vectors = tensors(compact_positions(4), 40.0 * np.eye(3))
    assert torch.equal(RegionGeometry(layout(surroundings=False)).sources(x, vectors), x)


def test_without_a_box_nothing_is_wrapped():
    positions = compact_positions(4)
    positions[ATOMS[0]] += 500.0
    (x,) = tensors(positions)
    sites = RegionGeometry(layout(periodic=False)).sites(x, None).numpy()
    np.testing.assert_array_equal(sites[0], positions[ATOMS[0]])


def test_a_periodic_region_needs_a_box():
    (x,) = tensors(compact_positions(4))
    with pytest.raises(RuntimeError, match="a term of a periodic System was given no box"):
        RegionGeometry(layout()).sites(x, None)


def test_a_cubic_box_with_an_edge_of_one_is_a_box():
    """Nothing is special about the unit matrix: without a box there is None."""
    far = np.array([[0.9, 0.0, 0.0], [0.4, -0.7, 0.0]])
    np.testing.assert_allclose(nearest_displacements(far, np.eye(3)), [[-0.1, 0, 0], [0.4, 0.3, 0]], atol=ROUND_OFF)
    np.testing.assert_array_equal(nearest_displacements(far, None), far)


@pytest.mark.parametrize("links", [LINKS, ()], ids=["links", "no links"])
@pytest.mark.parametrize("surroundings", [True, False], ids=["embedded", "alone"])
@pytest.mark.parametrize("periodic", [True, False], ids=["box", "no box"])
def test_collect_is_the_chain_rule(periodic, surroundings, links):
    geometry = RegionGeometry(layout(periodic, surroundings, links))
    box = np.array([[22.0, 0, 0], [7.0, 25.0, 0], [-9.0, 8.0, 24.0]])
    rng = np.random.default_rng(6)
    positions = compact_positions(6) + rng.integers(-2, 3, (N_PARTICLES, 3)) @ box
    x, vectors = tensors(positions, box)
    vectors = vectors if periodic else None
    x.requires_grad_(True)
    sites = geometry.sites(x, vectors)
    sources = geometry.sources(x, vectors)
    on_sites, on_sources = tensors(
        rng.standard_normal(sites.shape),
        rng.standard_normal(sources.shape) if surroundings else np.zeros((0, 3)),
    )
    value = (on_sites * sites).sum()
    if surroundings:
        value = value + (on_sources * sources).sum()
    expected = torch.autograd.grad(value, x)[0]
    before = on_sites.clone(), on_sources.clone()
    found = geometry.collect(on_sites, on_sources, x.detach(), vectors)
    np.testing.assert_allclose(found, expected, rtol=0, atol=ROUND_OFF * float(expected.abs().max()))
    assert torch.equal(on_sites, before[0])
    assert torch.equal(on_sources, before[1])


def test_a_link_at_a_fixed_distance_feels_no_force_along_its_bond():
    geometry = RegionGeometry(layout(periodic=False, surroundings=False, links=LINKS[2:]))
    geometry.link_ratios[:], geometry.link_distances[:] = 0.0, DISTANCES[2]
    positions = compact_positions(3)
    q1, m1 = ATOMS[LINKS[2][0]], LINKS[2][1]
    direction = (positions[m1] - positions[q1]) / np.linalg.norm(positions[m1] - positions[q1])
    x, on_sites, nothing = tensors(positions, np.zeros((len(ATOMS) + 1, 3)), np.zeros((0, 3)))
    on_sites[-1] = torch.tensor(direction)
    gradient = geometry.collect(on_sites, nothing, x, None).numpy()
    # Stretching the bond moves the link atom with q1 and not with m1.
    np.testing.assert_allclose(gradient[m1], 0.0, rtol=0, atol=ROUND_OFF)
    np.testing.assert_allclose(gradient[q1], direction, rtol=0, atol=ROUND_OFF)


def test_torchscript_gives_the_same():
    geometry = RegionGeometry(layout())
    scripted = torch.jit.script(RegionGeometry(layout()))
    x, vectors = tensors(compact_positions(9), 40.0 * np.eye(3))
    on_sites, on_sources = torch.ones(8, 3, dtype=torch.float64), torch.ones(14, 3, dtype=torch.float64)
    for _ in range(3):
        assert torch.equal(geometry.sites(x, vectors), scripted.sites(x, vectors))
        assert torch.equal(geometry.sources(x, vectors), scripted.sources(x, vectors))
        arguments = (on_sites, on_sources, x, vectors)
        assert torch.equal(geometry.collect(*arguments), scripted.collect(*arguments))


# --- regions of several molecules, and regions that are too wide ---

OCTAHEDRON = np.array([[1, 0, 0], [1 / 3, 2 * np.sqrt(2) / 3, 0], [-1 / 3, np.sqrt(2) / 3, np.sqrt(6) / 3]])


def molecules(n_atoms, bonds, links=0):
    return TermLayout(
        specification=RegionSpecification("site/ML", np.full(n_atoms + links, 6), 0, 1),
        coefficient=1.0,
        n_particles=n_atoms,
        atoms=np.arange(n_atoms),
        anchor=0,
        link_bonds=np.zeros((links, 2), dtype=np.int64),
        link_ratios=np.zeros(links),
        link_distances=np.zeros(links),
        periodic=True,
        surroundings=None,
        bonds=np.array(bonds, dtype=np.int64).reshape(-1, 2),
        labels=tuple(f"ATM{k}" for k in range(n_atoms)),
    )


@settings(deadline=None, max_examples=60)
@given(reduced_boxes(), st.lists(st.tuples(*[st.integers(-3, 3)] * 3), min_size=6, max_size=6), st.integers(0, 1000))
def test_molecules_are_whole_in_any_box(box, images, seed):
    """Two molecules of three atoms whose bonds are shorter than the limit, and the region as a whole too."""
    rng = np.random.default_rng(seed)
    directions = rng.standard_normal((6, 3))
    whole = 0.24 * SHORTEST_EDGE * directions / np.linalg.norm(directions, axis=1)[:, None]
    geometry = RegionGeometry(molecules(6, [(0, 1), (0, 2), (3, 4), (4, 5)]))
    x, vectors = tensors(whole + np.array(images) @ box, box)
    expected = whole + images[0] @ box
    np.testing.assert_allclose(geometry.sites(x, vectors).numpy(), expected, rtol=0, atol=LATTICE_ROUND_OFF)


@settings(deadline=None, max_examples=60)
@given(reduced_boxes())
def test_the_shortest_lattice_vector_is_that_of_a_search_or_a_bound_below_it(box):
    (vectors,) = tensors(box)
    every = [np.array(n) @ box for n in product(range(-3, 4), repeat=3) if any(n)]
    exact = min(map(np.linalg.norm, every))
    found = float(shortest_lattice_vector(vectors, torch.tensor(AROUND, dtype=torch.float64)))
    assert found == pytest.approx(min(exact, 2.0 * box[2, 2], 1.5 * box[1, 1]), rel=ROUND_OFF)


def test_a_molecule_near_half_the_box_is_not_torn():
    """The first atom of the second molecule is nearer in one image, the second in another one."""
    box = 20.0 * np.eye(3)
    x, vectors = tensors([[0, 0, 0], [9.9, 0, 0], [-9.1, 0, 0]], box)
    geometry = RegionGeometry(molecules(3, [(1, 2)]))
    with pytest.raises(EvaluationError, match="ATM0 and ATM2 are 0.577 nm apart.*nearest image is 0.529 nm"):
        geometry.sites(x, vectors)
    wider, vectors = tensors([[0, 0, 0], [9.9, 0, 0], [10.9, 0, 0]], 22.0 * np.eye(3))
    np.testing.assert_array_equal(geometry.sites(wider, vectors).numpy(), wider.numpy())


@pytest.mark.parametrize("box", [20.0 * np.eye(3), 20.0 * OCTAHEDRON], ids=["cubic", "octahedron"])
@pytest.mark.parametrize("direction", [[1.0, 0, 0], [0, 0, 1.0], [0.3, -0.5, 0.9], [1.0, 1.0, 1.0]])
def test_the_limit_is_half_the_distance_of_images(box, direction):
    unit = np.array(direction) / np.linalg.norm(direction)
    geometry = RegionGeometry(molecules(2, []))
    for share in (0.499, 0.501):
        x, vectors = tensors([np.zeros(3), share * 20.0 * unit], box)
        shifted, _ = tensors([np.zeros(3), share * 20.0 * unit + box[2] - box[0]], box)
        if share < 0.5:
            found = geometry.sites(shifted, vectors).numpy()
            np.testing.assert_allclose(found, x.numpy(), rtol=0, atol=LATTICE_ROUND_OFF)
        else:
            shortest = min(np.linalg.norm(share * 20.0 * unit + np.array(n) @ box) for n in AROUND)
            if shortest > 10.0:  # else the atom is near in another image
                with pytest.raises(EvaluationError, match="wider than half the box"):
                    geometry.sites(shifted, vectors)


def test_a_long_molecule_is_measured_from_end_to_end():
    box = 30.0 * np.eye(3)
    places = np.array([[4.0 * k, 0.0, 0.0] for k in range(5)])  # 16 bohr, and 8 to each side of the anchor
    chain = molecules(5, [(0, 1), (1, 2), (2, 3), (3, 4)])
    x, vectors = tensors(places, box)
    with pytest.raises(EvaluationError, match="ATM0 and ATM4 are 0.847 nm apart"):
        RegionGeometry(replace(chain, anchor=2)).sites(x, vectors)
    x, vectors = tensors(places, 33.0 * np.eye(3))
    np.testing.assert_array_equal(RegionGeometry(replace(chain, anchor=2)).sites(x, vectors).numpy(), places)


def test_a_region_that_is_too_wide_is_an_error_of_torchscript_too():
    geometry = torch.jit.script(RegionGeometry(molecules(3, [(0, 1), (1, 2)])))
    x, vectors = tensors([[0, 0, 0], [0, 0, 6.0], [0, 0, 12.0]], 20.0 * np.eye(3))
    with pytest.raises(torch.jit.Error, match="qmmlmm EvaluationError: term 'site/ML': the region is wider"):
        geometry.sites(x, vectors)
