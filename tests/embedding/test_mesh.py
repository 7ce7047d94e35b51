from __future__ import annotations

import numpy as np
import openmm
import pytest
import torch

from qmmlmm.embedding.bsplines import spline_coefficients, spline_moduli
from qmmlmm.embedding.mesh import EwaldMesh, inverse_of_box
from tests.contexts import coulomb_constant, system_energy_and_forces
from tests.finite_differences import central_difference
from tests.toy_systems import OCTAHEDRON

OPENMM_TOLERANCE = 1e-11  # relative; both are double precision, and the sums hold a few thousand terms
ROUND_OFF = 1e-13  # relative; two orders of the same sums
DIFFERENCE = 1e-4  # bohr; central differences of a smooth potential
DIFFERENCE_TOLERANCE = 1e-7  # relative; the third derivatives times DIFFERENCE^2 / 6 are 1e-9 here
MADELUNG_TOLERANCE = 1e-6  # of the mesh used here: spacing 1/16 of the lattice constant, alpha 4 over it

BOXES = {
    "cubic": np.diag([2.0, 2.3, 2.6]),
    "triclinic": np.array([[2.1, 0, 0], [-0.7, 2.0, 0], [0.8, -0.9, 2.2]]),
    "octahedron": 2.5 * OCTAHEDRON,
}
ALPHA = 3.5  # 1/nm
# Even and odd. The even ones are fine enough that the Nyquist frequency, whose sign in a skewed box is a
# matter of taste, carries exp(-33).
GRIDS = [(36, 36, 40), (21, 25, 23)]


def charges_and_places(total, box, count=25, seed=3):
    rng = np.random.default_rng(seed)
    charges = rng.uniform(-1, 1, count)
    charges += (total - charges.sum()) / count
    # Also outside the box, on both sides.
    return charges, rng.uniform(-1.5, 2.5, (count, 3)) @ box


def tensors(*arrays):
    return [torch.tensor(np.asarray(a, dtype=float)) for a in arrays]


def openmm_reciprocal(charges, places, box, alpha, grid):
    """The reciprocal part of a NonbondedForce, in units of its Coulomb constant."""
    system, force = openmm.System(), openmm.NonbondedForce()
    system.setDefaultPeriodicBoxVectors(*box)
    for charge in charges:
        system.addParticle(1.0)
        force.addParticle(charge, 1.0, 0.0)
    force.setNonbondedMethod(openmm.NonbondedForce.PME)
    force.setCutoffDistance(0.8)
    force.setPMEParameters(alpha, *grid)
    force.setReciprocalSpaceForceGroup(1)
    system.addForce(force)
    energy, forces = system_energy_and_forces(system, places, groups={1})
    constant = coulomb_constant()
    return energy / constant, forces / constant


@pytest.mark.parametrize("grid", GRIDS, ids=["even", "odd"])
@pytest.mark.parametrize("total", [0.0, -3.0], ids=["neutral", "charged"])
@pytest.mark.parametrize("box", BOXES.values(), ids=BOXES.keys())
def test_energy_and_forces_are_those_of_openmm(box, total, grid):
    charges, places = charges_and_places(total, box)
    expected, forces = openmm_reciprocal(charges, places, box, ALPHA, grid)
    mesh = EwaldMesh(ALPHA, grid)  # in nm: the mesh knows no unit
    x, q, vectors = tensors(places, charges, box)
    potential, gradient = mesh.gather(mesh.convolve(mesh.spread(x, q, None, vectors), vectors), x, vectors)
    # OpenMM counts the charges' own Gaussians as well, which the reciprocal sum contains.
    own = ALPHA / np.sqrt(np.pi) * (charges**2).sum()
    assert 0.5 * float(q @ potential) - own == pytest.approx(expected, rel=OPENMM_TOLERANCE)
    np.testing.assert_allclose(
        -(q[:, None] * gradient).numpy(), forces, rtol=0, atol=OPENMM_TOLERANCE * abs(forces).max()
    )


def test_rock_salt_has_its_madelung_constant():
    # Source: Borwein, Borwein and Taylor, J. Math. Phys. 26, 2999 (1985).
    expected = -1.7475645946331822
    steps = np.array([[a, b, c] for a in (0, 1) for b in (0, 1) for c in (0, 1)], dtype=float)
    charges = (-1.0) ** steps.sum(1)
    box, alpha = 2.0 * np.eye(3), 2.0
    mesh = EwaldMesh(alpha, (32, 32, 32))
    x, q, vectors = tensors(steps + 0.3, charges, box)
    potential, _ = mesh.gather(mesh.convolve(mesh.spread(x, q, None, vectors), vectors), x, vectors)
    near = np.array([[a, b, c] for a in range(-4, 5) for b in range(-4, 5) for c in range(-4, 5)])
    r = np.linalg.norm(near, axis=1)
    signs = (-1.0) ** near[r > 0].sum(1)
    short = (signs * torch.erfc(alpha * torch.tensor(r[r > 0])).numpy() / r[r > 0]).sum()
    total = float(potential[0]) + short - 2.0 * alpha / np.sqrt(np.pi)
    assert total == pytest.approx(expected, abs=MADELUNG_TOLERANCE)


def filled_mesh(seed=5):
    """A mesh with the potential of some charges, a skewed box in bohr, and points to look at."""
    rng = np.random.default_rng(seed)
    box = 9.0 * BOXES["triclinic"]
    charges, places = charges_and_places(0.7, box, seed=seed)
    mesh = EwaldMesh(0.35, (20, 21, 24))
    x, q, vectors = tensors(places, charges, box)
    potential = mesh.convolve(mesh.spread(x, q, None, vectors), vectors)
    points = torch.tensor(rng.uniform(-1, 2, (12, 3)) @ box)
    return mesh, potential, points, vectors


def test_the_gradient_is_that_of_the_value():
    mesh, potential, points, box = filled_mesh()
    _, gradient = mesh.gather(potential, points, box)
    for axis in range(3):
        along = torch.eye(3, dtype=torch.float64)[axis]
        numerical = central_difference(lambda x: mesh.gather(potential, x, box)[0], points, along, DIFFERENCE)
        scale = float(gradient.abs().max())
        np.testing.assert_allclose(gradient[:, axis], numerical, rtol=0, atol=DIFFERENCE_TOLERANCE * scale)


def test_the_curvature_is_that_of_the_gradient():
    mesh, potential, points, box = filled_mesh()
    _, _, curvature = mesh.gather_few(potential, mesh.stencil(points, box), box)
    scale = float(curvature.abs().max())
    for axis in range(3):
        along = torch.eye(3, dtype=torch.float64)[axis]
        numerical = central_difference(lambda x: mesh.gather(potential, x, box)[1], points, along, DIFFERENCE)
        np.testing.assert_allclose(curvature[:, :, axis], numerical, rtol=0, atol=DIFFERENCE_TOLERANCE * scale)
    np.testing.assert_allclose(
        curvature, curvature.transpose(1, 2), rtol=0, atol=ROUND_OFF * scale, err_msg="not symmetric"
    )


def test_spreading_charges_and_dipoles_is_the_adjoint_of_gathering_value_and_gradient():
    mesh, _, points, box = filled_mesh()
    generator = torch.Generator().manual_seed(7)
    charges = torch.randn(12, generator=generator, dtype=torch.float64)
    dipoles = torch.randn(12, 3, generator=generator, dtype=torch.float64)
    anything = torch.randn(20, 21, 24, generator=generator, dtype=torch.float64)
    value, gradient = mesh.gather(anything, points, box)
    there = float((charges * value).sum() + (dipoles * gradient).sum())
    back = float((mesh.spread(points, charges, dipoles, box) * anything).sum())
    assert back == pytest.approx(there, rel=ROUND_OFF)


def test_charges_and_test_charges_can_change_places():
    mesh, _, points, box = filled_mesh()
    generator = torch.Generator().manual_seed(8)
    q = torch.randn(5, generator=generator, dtype=torch.float64)
    w = torch.randn(7, generator=generator, dtype=torch.float64)
    here, there = points[:5], points[5:]
    one, _ = mesh.gather(mesh.convolve(mesh.spread(here, q, None, box), box), there, box)
    other, _ = mesh.gather(mesh.convolve(mesh.spread(there, w, None, box), box), here, box)
    assert float(w @ one) == pytest.approx(float(q @ other), rel=1e3 * ROUND_OFF)  # FFT round-off


@pytest.mark.parametrize("few", [0, 12])
@pytest.mark.parametrize("chunk", [1, 5, 12, 13])
def test_the_size_of_the_chunks_does_not_matter(chunk, few):
    mesh, potential, points, box = filled_mesh()
    charges = torch.arange(12, dtype=torch.float64)
    dipoles = torch.ones(12, 3, dtype=torch.float64)
    whole = mesh.spread(points, charges, dipoles, box), *mesh.gather(potential, points, box)
    mesh.chunk, mesh.few = chunk, few
    parts = mesh.spread(points, charges, dipoles, box), *mesh.gather(potential, points, box)
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=ROUND_OFF * float(one.abs().max()))


def test_no_points_give_nothing():
    mesh, potential, _, box = filled_mesh()
    value, gradient = mesh.gather(potential, torch.zeros(0, 3, dtype=torch.float64), box)
    assert value.shape == (0,)
    assert gradient.shape == (0, 3)


@pytest.mark.parametrize("few", [0, 12])
def test_torchscript_gives_the_same(few):
    mesh, potential, points, box = filled_mesh()
    scripted = torch.jit.script(EwaldMesh(0.35, (20, 21, 24)))
    scripted.few = few
    charges = torch.arange(12, dtype=torch.float64)
    dipoles = torch.ones(12, 3, dtype=torch.float64)
    for _ in range(3):  # the second and third time it runs what the first one profiled
        for first, second in (
            (mesh.spread(points, charges, dipoles, box), scripted.spread(points, charges, dipoles, box)),
            (mesh.spread(points, charges, None, box), scripted.spread(points, charges, None, box)),
            (mesh.convolve(potential, box), scripted.convolve(potential, box)),
            (mesh.gather(potential, points, box)[0], scripted.gather(potential, points, box)[0]),
            (mesh.gather(potential, points, box)[1], scripted.gather(potential, points, box)[1]),
            (
                mesh.gather_few(potential, mesh.stencil(points, box), box)[2],
                scripted.gather_few(potential, scripted.stencil(points, box), box)[2],
            ),
        ):
            np.testing.assert_allclose(first, second, rtol=0, atol=ROUND_OFF * float(first.abs().max()))


def test_a_changed_box_is_noticed():
    mesh, _, points, box = filled_mesh()
    charges = torch.linspace(-1, 2, 12, dtype=torch.float64)
    seen = []
    for scale in (1.0, 1.02, 1.0):
        vectors = scale * box
        charged = mesh.spread(scale * points, charges, None, vectors)
        fresh = EwaldMesh(0.35, (20, 21, 24)).convolve(charged, vectors)
        seen.append(mesh.convolve(charged, vectors))
        assert torch.equal(seen[-1], fresh)
    assert torch.equal(seen[0], seen[2])
    assert not torch.equal(seen[0], seen[1])


def test_changing_the_box_in_place_is_noticed_too():
    mesh, potential, _, box = filled_mesh()
    before = mesh.convolve(potential, box)
    box *= 1.1
    assert not torch.equal(before, mesh.convolve(potential, box))


@pytest.mark.parametrize("order", [2, 3, 4, 5])
def test_the_spline_weights_add_up_to_one_everywhere(order):
    polynomials = spline_coefficients(order)
    w = np.linspace(0, 1, 11)
    total = (w[:, None] ** np.arange(order) @ polynomials).sum(1)
    np.testing.assert_allclose(total, 1.0, rtol=0, atol=ROUND_OFF)


def test_a_modulus_that_vanishes_is_the_mean_of_its_neighbours():
    # M5(1..5) alternates to (1 - 11 + 11 - 1) / 24 = 0 at the Nyquist frequency of an even size.
    moduli = spline_moduli(16, 5)
    assert moduli[8] == pytest.approx(0.5 * (moduli[7] + moduli[9]), rel=ROUND_OFF)
    assert (moduli > 1e-7).all()


SINGLE_TOLERANCE = 2e-6  # of the largest value; float32 holds 6e-8, and the sums and transforms add up some of it
SITE_TOLERANCE = 1e-8  # relative; a difference of two energies, which loses a few of OpenMM's digits


@pytest.mark.parametrize("total", [0.0, -3.0], ids=["neutral", "charged"])
@pytest.mark.parametrize("box", BOXES.values(), ids=BOXES.keys())
def test_the_potential_at_a_site_is_that_of_openmm(box, total):
    charges, places = charges_and_places(total, box)
    grid = GRIDS[1]
    site = np.array([[0.31, -0.2, 0.87]]) @ box
    energies = [
        openmm_reciprocal(np.append(charges, probe), np.append(places, site, axis=0), box, ALPHA, grid)[0]
        for probe in (1.0, -1.0)
    ]
    mesh = EwaldMesh(ALPHA, grid)
    x, q, vectors, at = tensors(places, charges, box, site)
    potential, _, _ = mesh.gather_few(
        mesh.convolve(mesh.spread(x, q, None, vectors), vectors), mesh.stencil(at, vectors), vectors
    )
    assert float(potential) == pytest.approx(0.5 * (energies[0] - energies[1]), rel=SITE_TOLERANCE)


def everything(mesh, device="cpu"):
    """What a mesh computes, from spreading to second derivatives."""
    rng = np.random.default_rng(9)
    box = 9.0 * BOXES["triclinic"]
    charges, places = charges_and_places(0.7, box, count=600)
    x, q, vectors, sites, w, d = (
        t.to(device)
        for t in tensors(places, charges, box, rng.uniform(-1, 2, (7, 3)) @ box, rng.normal(size=7), np.eye(7)[:, :3])
    )
    potential = mesh.convolve(mesh.spread(x, q, None, vectors), vectors)
    back = mesh.convolve(mesh.spread(sites, w, d, vectors), vectors)
    found = [
        potential,
        *mesh.gather_few(potential, mesh.stencil(sites, vectors), vectors),
        *mesh.gather(back, x, vectors),
    ]
    return [t.cpu().to(torch.float64).numpy() for t in found]


def assert_close(found, expected, tolerance):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * abs(other).max())


@pytest.mark.parametrize("scripted", [False, True])
def test_single_precision_has_the_error_of_single_precision(scripted):
    mesh = EwaldMesh(0.35, (20, 21, 23), dtype=torch.float32)
    single = everything(torch.jit.script(mesh) if scripted else mesh)
    double = everything(EwaldMesh(0.35, (20, 21, 23)))
    assert_close(single, double, SINGLE_TOLERANCE)
    assert not np.array_equal(single[0], double[0])


def test_gathering_for_many_points_and_for_few_is_the_same():
    mesh, potential, points, box = filled_mesh()
    few, many = mesh.gather_few(potential, mesh.stencil(points, box), box), mesh.gather(potential, points, box)
    assert_close([few[0].numpy(), few[1].numpy()], [many[0].numpy(), many[1].numpy()], ROUND_OFF)


@pytest.mark.parametrize("grid", [(17, 20, 24), (20, 19, 24), (20, 24, 23), (17, 19, 34), (19, 38, 17), (6, 7, 8)])
def test_sizes_that_the_fft_is_slow_at_are_transformed_to_the_same(grid):
    mesh = EwaldMesh(0.35, grid)
    box = torch.tensor(9.0 * BOXES["triclinic"])
    charged = torch.randn(grid, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = torch.fft.irfftn(torch.fft.rfftn(charged) * mesh.influence(box), s=grid, norm="forward")
    assert mesh.transform.by_matrix == (grid != (6, 7, 8))
    for module in (mesh, torch.jit.script(mesh)):
        assert_close([module.convolve(charged, box).numpy()], [expected.numpy()], 10 * ROUND_OFF)


def test_a_mesh_that_is_smaller_than_the_splines_reach_is_wrapped_twice():
    box = 0.3 * BOXES["triclinic"]
    charges, places = charges_and_places(0.5, box)
    x, q, vectors = tensors(places, charges, box)
    mesh = EwaldMesh(ALPHA, (3, 4, 5))
    charged = mesh.spread(x, q, None, vectors)
    assert float(charged.sum()) == pytest.approx(0.5, rel=1e2 * ROUND_OFF)
    anything = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    value, _ = mesh.gather(anything, x, vectors)
    assert float((charged * anything).sum()) == pytest.approx(float(q @ value), rel=1e2 * ROUND_OFF)


def test_a_point_on_the_far_face_and_one_that_is_not_a_number():
    mesh = EwaldMesh(ALPHA, (20, 21, 24))
    box = torch.eye(3, dtype=torch.float64)
    points = torch.tensor([[-1e-18, 0.5, 0.5], [0.0, 0.5, 0.5], [float("nan"), 0.1, 0.1]], dtype=torch.float64)
    value, gradient = mesh.gather(torch.arange(20 * 21 * 24.0, dtype=torch.float64).view(20, 21, 24), points, box)
    assert float(value[0]) == pytest.approx(float(value[1]), rel=ROUND_OFF)
    np.testing.assert_allclose(gradient[0], gradient[1], rtol=1e3 * ROUND_OFF)
    assert torch.isnan(value[2])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e3 * ROUND_OFF), (torch.float32, SINGLE_TOLERANCE)])
@pytest.mark.parametrize("grid", [(20, 21, 24), (17, 19, 23)])
def test_a_gpu_gives_the_same(grid, dtype, tolerance):
    expected = everything(EwaldMesh(0.35, grid))
    for module in (EwaldMesh(0.35, grid, dtype=dtype), torch.jit.script(EwaldMesh(0.35, grid, dtype=dtype))):
        assert_close(everything(module.to("cuda"), "cuda"), expected, tolerance)


@pytest.mark.parametrize("name", BOXES)
def test_the_inverse_of_a_box_is_that_of_linear_algebra(name):
    box = torch.tensor(BOXES[name])
    inverse, volume = inverse_of_box(box)
    np.testing.assert_allclose(inverse, np.linalg.inv(BOXES[name]), rtol=0, atol=ROUND_OFF * float(inverse.abs().max()))
    assert float(volume) == pytest.approx(np.linalg.det(BOXES[name]), rel=ROUND_OFF)


@pytest.mark.parametrize("dipoles", [False, True])
def test_spreading_with_a_stencil_gives_the_same(dipoles):
    mesh, _, points, box = filled_mesh()
    charges = torch.linspace(-1, 2, 12, dtype=torch.float64)
    moments = torch.randn(12, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64) if dipoles else None
    few = mesh.spread_few(mesh.stencil(points, box), charges, moments, box)
    assert_close([few.numpy()], [mesh.spread(points, charges, moments, box).numpy()], ROUND_OFF)


def among_few(mesh, box, charges):
    """The potential at close points, on both sides of a face of the box, of charges at the first ones."""
    generator = torch.Generator().manual_seed(4)
    points = 1.5 * torch.randn(6, 3, generator=generator, dtype=torch.float64) + 0.02 * box.sum(0)
    return mesh.potential_among_few(mesh.stencil(points, box), charges, box), points


@pytest.mark.parametrize("scripted", [False, True])
@pytest.mark.parametrize("grid", [(20, 21, 24), (17, 36, 19), (40, 6, 48)])
def test_a_convolution_on_a_part_of_the_mesh_is_that_on_the_whole(grid, scripted):
    mesh = EwaldMesh(0.35, grid)
    mesh.patch_share = 0  # always on a part, even if it is larger than the whole
    if scripted:
        mesh = torch.jit.script(mesh)
    charges = torch.tensor([0.7, -0.4, 0.9, -0.3], dtype=torch.float64)
    for scale in (1.0, 1.1, 1.0):
        box = scale * torch.tensor(9.0 * BOXES["triclinic"])
        (value, gradient), points = among_few(mesh, box, charges)
        whole = mesh.convolve(mesh.spread(points[:4], charges, None, box), box)
        expected, slope = mesh.gather(whole, points, box)
        assert_close([value.numpy(), gradient.numpy()], [expected.numpy(), slope.numpy()], ROUND_OFF)


def test_a_part_of_the_mesh_is_used_if_it_is_small():
    box = torch.tensor(9.0 * BOXES["triclinic"])
    charges = torch.ones(4, dtype=torch.float64)
    for grid, small in (((20, 21, 24), False), ((72, 75, 80), True)):
        mesh = EwaldMesh(0.35, grid)
        among_few(mesh, box, charges)
        assert (mesh.patch_sizes != [0, 0, 0]) == small
