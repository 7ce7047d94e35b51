"""The compiled mesh, against the operations of torch."""

from __future__ import annotations

import pickle
import shutil

import numpy as np
import pytest
import torch

from qmmlmm import Hamiltonian, MLPotential, Region, Term, create_mixed_system
from qmmlmm.embedding import mesh_kernel
from qmmlmm.embedding.compiled_cache import write_compiled
from qmmlmm.embedding.mesh import CHUNK, EwaldMesh
from qmmlmm.embedding.torch_term import NOT_ASKED, TorchTerm
from qmmlmm.errors import PotentialError
from qmmlmm.geometry import Geometry
from tests.contexts import system_energy_and_forces
from tests.toy_potentials import EvaluatedSprings, FixedCharges
from tests.toy_systems import chains_among_ions

ROUND_OFF = {torch.float64: 1e-13, torch.float32: 5e-6}  # of the largest value; sums of up to 216 in another order
BOX = torch.tensor([[9.0, 0.0, 0.0], [1.0, 8.0, 0.0], [-2.0, 1.5, 10.0]], dtype=torch.float64)
GRID = (20, 21, 24)

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")


@pytest.fixture
def nothing_compiled(tmp_path, monkeypatch):
    """An empty cache that exists only in the test."""
    monkeypatch.setenv("QMMLMM_CACHE", str(tmp_path / "cache"))
    mesh_kernel.unavailable_because.cache_clear()
    yield
    mesh_kernel.unavailable_because.cache_clear()


@pytest.fixture
def compiled(nothing_compiled):
    mesh_kernel.compile_mesh_kernel()


def points(n):
    generator = torch.Generator().manual_seed(1)
    places = torch.rand(n, 3, generator=generator, dtype=torch.float64) @ BOX
    return places, torch.randn(n, generator=generator, dtype=torch.float64)


@needs_compiler
@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("dtype", ROUND_OFF)
@pytest.mark.parametrize("order", mesh_kernel.ORDERS)
@pytest.mark.parametrize("n", [2000, CHUNK + 500], ids=["one chunk", "two chunks"])
def test_compiled_loops_give_the_same(dtype, n, order):
    places, charges = points(n)
    found = []
    for compiled in (False, True):
        mesh = torch.jit.script(EwaldMesh(0.35, GRID, order, dtype, compiled=compiled))
        spread = mesh.spread(places, charges, None, BOX)
        found.append([spread, *mesh.gather(mesh.convolve(spread, BOX), places, BOX)])
    for other, one in zip(*found, strict=True):
        assert one.dtype == dtype
        np.testing.assert_allclose(one, other, rtol=0, atol=ROUND_OFF[dtype] * float(other.abs().max()))


@needs_compiler
@pytest.mark.usefixtures("compiled")
def test_dipoles_are_spread_as_without_compiled_loops():
    places, charges = points(2000)
    dipoles = torch.stack([charges, 0.5 * charges, -charges], dim=1)
    one, other = (
        EwaldMesh(0.35, GRID, compiled=compiled).spread(places, charges, dipoles, BOX) for compiled in (True, False)
    )
    assert torch.equal(one, other)


@needs_compiler
@pytest.mark.usefixtures("compiled")
def test_positions_that_are_not_numbers_are_seen_in_the_result():
    places, charges = points(2000)
    places[7, 1] = torch.nan
    mesh = EwaldMesh(0.35, GRID, compiled=True)
    assert torch.isnan(mesh.spread(places, charges, None, BOX)).any()


@needs_compiler
@pytest.mark.usefixtures("compiled")
def test_splines_of_another_order_or_type_are_refused():
    mesh = torch.zeros(1000, dtype=torch.float64)
    start, charges = torch.zeros(4, dtype=torch.int64), torch.zeros(4, dtype=torch.float64)
    with pytest.raises(PotentialError, match="mesh is not compiled for order 7"):
        EwaldMesh(0.35, GRID, order=7, compiled=True)
    with pytest.raises(PotentialError, match="splines have the shape"):
        torch.ops.qmmlmm.spread(mesh, start, torch.zeros(2, 7, 3, 4, dtype=torch.float64), charges, 10, 10)
    with pytest.raises(PotentialError, match="have one type"):
        torch.ops.qmmlmm.gather(mesh, start, torch.zeros(2, 5, 3, 4), 10, 10)


def test_without_compiled_loops_a_mesh_with_them_is_an_error(nothing_compiled):
    assert "'qmmlmm compile' makes one" in mesh_kernel.unavailable_because()
    with pytest.raises(PotentialError, match="mesh is not compiled"):
        EwaldMesh(0.35, GRID, compiled=True)


def test_a_compiler_that_fails_is_an_error(nothing_compiled, monkeypatch):
    monkeypatch.setenv("CXX", "false")
    with pytest.raises(PotentialError, match="cannot compile the mesh"):
        mesh_kernel.compile_mesh_kernel()


@needs_compiler
def test_a_library_that_cannot_be_loaded_is_not_used(nothing_compiled):
    write_compiled(mesh_kernel._key(), b"no library")
    assert mesh_kernel.unavailable_because().startswith("the compiled mesh cannot be loaded")


def test_torchscript_without_compiled_loops_does_not_know_of_them():
    mesh = torch.jit.script(EwaldMesh(0.35, GRID))
    for name in ("spread_located", "gather_located"):
        assert "qmmlmm::" not in str(mesh._c._get_method(name).inlined_graph)


def charges_in_a_box():
    case = chains_among_ions("triclinic", 1, 2)
    potential = MLPotential(
        FixedCharges(case.charges[:6]), atomic_numbers=[6] * 6, charge=None, embeddings=["electrostatic"]
    )
    return case, Hamiltonian([Term(potential, Region("site", range(6), charge=1), embedding="electrostatic")])


@needs_compiler
@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("precision", ["double", "mixed"])
def test_a_system_uses_the_compiled_mesh_and_has_the_same_forces(precision, monkeypatch):
    # A few ions are spread in another way.
    monkeypatch.setattr("qmmlmm.embedding.mesh.FEW", -1)
    case, hamiltonian = charges_in_a_box()
    found = []
    for compiled in (True, False):
        options = {"ml_compiled": compiled, "ml_precision": precision, "ml_backend": "pythonforce"}
        mixed = create_mixed_system(case.topology, case.system, hamiltonian, **options)
        found.append(system_energy_and_forces(mixed.system, case.positions))
        reason = mixed.describe()["terms"][0]["compiled"]["mesh"]
        assert reason == ("yes" if compiled else NOT_ASKED)
    tolerance = ROUND_OFF[torch.float32 if precision == "mixed" else torch.float64]
    assert found[0][0] == pytest.approx(found[1][0], rel=tolerance)
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=0, atol=tolerance * np.abs(found[1][1]).max())


@needs_compiler
@pytest.mark.usefixtures("compiled")
def test_a_term_with_a_compiled_part_runs_in_python_and_can_be_pickled():
    case, hamiltonian = charges_in_a_box()
    mixed = create_mixed_system(case.topology, case.system, hamiltonian)
    assert mixed.describe()["terms"][0]["backend"] == "PythonForce"
    term = mixed.terms["site/ML"].runner.region_term
    assert isinstance(term, TorchTerm)
    geometry = Geometry(case.positions, case.box)
    restored = pickle.loads(pickle.dumps(term))
    assert restored.compute(geometry)[0] == term.compute(geometry)[0]
    assert restored.not_compiled_because == term.not_compiled_because


@needs_compiler
def test_an_evaluated_term_uses_the_compiled_mesh_and_has_the_same_forces(nothing_compiled, monkeypatch):
    monkeypatch.setattr("qmmlmm.embedding.mesh.FEW", -1)
    case, _ = charges_in_a_box()
    region = Region("site", range(6), charge=1)
    hamiltonian = Hamiltonian([Term(EvaluatedSprings(case.charges[:6]), region, embedding="electrostatic")])
    found, compiled = [], []
    for compiles in (False, True):
        if compiles:
            mesh_kernel.compile_mesh_kernel()
        mixed = create_mixed_system(case.topology, case.system, hamiltonian)
        (term,) = mixed.terms.values()
        compiled.append(term.runner.region_term._field.field.mesh.compiled)
        found.append(system_energy_and_forces(mixed.system, case.positions))
    assert compiled == [False, True]
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-13)
    np.testing.assert_allclose(found[1][1], found[0][1], rtol=0, atol=1e-13 * np.abs(found[0][1]).max())
