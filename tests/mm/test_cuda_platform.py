"""The same numbers on OpenMM's CUDA platform as on Reference."""

from __future__ import annotations

import copy
import functools
from dataclasses import replace

import numpy as np
import openmm
import pytest
import torch
from openmm import app, unit

from qmmlmm import Hamiltonian, MLPotential, PySCFPotential, Region, Term, create_mixed_system
from qmmlmm.geometry import Geometry
from qmmlmm.ml.compiled_network import compile_network
from qmmlmm.ml.response_network import ResponseNetwork
from qmmlmm.mm.torch_force import create_torch_force, unavailable_because
from qmmlmm.sampling.multiple_time_step import MultipleTimeStepIntegrator
from tests.contexts import energy_and_forces, make_context
from tests.finite_differences import central_difference

PLATFORMS = {openmm.Platform.getPlatform(k).getName() for k in range(openmm.Platform.getNumPlatforms())}
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available() or "CUDA" not in PLATFORMS, reason="no CUDA device, or OpenMM without CUDA"
    ),
]

METHANOL = [6, 8, 1, 1, 1, 1]
# Forces relative to the largest one. OpenMM sums forces as integers of 2^-32 kJ/(mol nm) on a GPU, its bonded terms
# and PME are in single precision but for "double", where its PME tables still are good to 1e-6.
TOLERANCES = {"double": 2e-6, "mixed": 3e-5}
SINGLE_MESH = 2e-5


class Nothing(torch.nn.Module):
    def forward(self, positions):
        return 0.0 * positions.sum(), 0.0 * positions


@functools.cache
def no_torchforce_because():
    """Return why no TorchForce runs on CUDA here, or None if one does."""
    reason = unavailable_because()
    if reason is not None:
        return reason
    system = openmm.System()
    system.addParticle(1.0)
    system.addForce(create_torch_force(torch.jit.script(Nothing()), False))
    try:
        context_on(system, np.zeros((1, 3)), "CUDA")
    except openmm.OpenMMException as error:
        return f"the plug-in of openmmtorch has no CUDA: {error}"
    return None


@pytest.fixture(params=["torchforce", "pythonforce"])
def backend(request):
    """How ML terms run: on the GPU, or on the CPU beside it."""
    reason = no_torchforce_because() if request.param == "torchforce" else None
    if reason is not None:
        pytest.skip(reason)
    return request.param


@pytest.fixture(scope="module")
def methanol_in_water():
    """Topology, System, positions in nm and the atoms of a methanol in flexible water."""
    box = np.array([2.0, 2.1, 2.2])
    molecule = 0.5 * box + np.array(
        [
            [0.0, 0.0, 0.0],
            [0.143, 0.0, 0.0],
            [-0.036, 0.103, 0.0],
            [-0.036, -0.051, 0.089],
            [-0.036, -0.051, -0.089],
            [0.175, 0.09, 0.0],
        ]
    )
    force_field = app.ForceField("amber14/tip3p.xml")
    modeller = app.Modeller(app.Topology(), [])
    modeller.addSolvent(force_field, boxSize=openmm.Vec3(*box) * unit.nanometer)
    positions = np.array(modeller.positions.value_in_unit(unit.nanometer))
    near = np.linalg.norm(positions[:, None] - molecule[None], axis=-1).min(axis=1) < 0.25
    modeller.delete({atom.residue for atom in modeller.topology.atoms() if near[atom.index]})
    topology = modeller.topology
    system = force_field.createSystem(topology, nonbondedMethod=app.PME, nonbondedCutoff=0.8, rigidWater=False)
    positions = np.concatenate([modeller.positions.value_in_unit(unit.nanometer), molecule])
    residue = topology.addResidue("MOH", topology.addChain())
    elements = [app.Element.getByAtomicNumber(number) for number in METHANOL]
    atoms = [topology.addAtom(f"{element.symbol}{k}", element, residue) for k, element in enumerate(elements)]
    for i, j in ((0, 1), (0, 2), (0, 3), (0, 4), (1, 5)):
        topology.addBond(atoms[i], atoms[j])
    (nonbonded,) = (force for force in system.getForces() if isinstance(force, openmm.NonbondedForce))
    # A GPU rounds the mesh up to what its Fourier transforms like; Reference takes any.
    nonbonded.setPMEParameters(3.3, 24, 24, 24)
    first = system.getNumParticles()
    for element, charge in zip(elements, (0.12, -0.6, 0.02, 0.02, 0.02, 0.42), strict=True):
        system.addParticle(element.mass)
        nonbonded.addParticle(charge, 0.3, 0.2)
    for i in range(6):
        for j in range(i):
            nonbonded.addException(first + i, first + j, 0.0, 0.3, 0.0)
    frozen = copy.deepcopy(system)
    for i in range(first, first + 6):
        frozen.setParticleMass(i, 0.0)
    context = context_on(frozen, positions, "CPU")
    openmm.LocalEnergyMinimizer.minimize(context, maxIterations=100)
    positions = context.getState(positions=True).getPositions(asNumpy=True)._value
    return topology, system, positions, tuple(range(first, first + 6))


def network(numbers, members=1, dtype=torch.float64):
    torch.manual_seed(3)
    model = ResponseNetwork(numbers, [(0, 1), (1, 5)], conditions=[(0, 1, 0)], members=members, dtype=dtype)
    return model.eval()


def context_on(system, positions, platform, precision=None, **options):
    properties = {"Precision": precision} if precision else {}
    options = {"integrator": openmm.VerletIntegrator(0.0005)} | options
    return make_context(system, positions, platform=platform, properties=properties, **options)


def at(context, positions, groups=-1):
    """Energy and forces of a Context at positions in nm."""
    context.setPositions(positions)
    return energy_and_forces(context, groups)


def assert_same_on_cuda(system, positions, precision, tolerance, n_geometries=4):
    reference, cuda = context_on(system, positions, "Reference"), context_on(system, positions, "CUDA", precision)
    rng = np.random.default_rng(1)
    for _ in range(n_geometries):  # TorchScript profiles the first calls and runs other code from then on
        moved = positions + 0.002 * rng.standard_normal(positions.shape)
        expected, expected_forces = at(reference, moved)
        energy, forces = at(cuda, moved)
        scale = np.abs(expected_forces).max()
        np.testing.assert_allclose(forces, expected_forces, rtol=0.0, atol=tolerance * scale)
        assert energy == pytest.approx(expected, rel=tolerance)


@pytest.mark.parametrize("precision", ["double", "mixed"])
@pytest.mark.parametrize("ml_precision", ["double", "mixed"])
@pytest.mark.parametrize("embedding", ["mechanical", "electrostatic"])
@pytest.mark.parametrize("members", [1, 3])
def test_an_ml_region_gives_the_same(methanol_in_water, backend, precision, ml_precision, embedding, members):
    topology, system, positions, atoms = methanol_in_water
    model = MLPotential(network(METHANOL, members), atomic_numbers=METHANOL, embeddings=["mechanical", "electrostatic"])
    hamiltonian = Hamiltonian([Term(model, Region("methanol", atoms, charge=0), embedding=embedding)])
    mixed = create_mixed_system(topology, system, hamiltonian, ml_precision=ml_precision, ml_backend=backend)
    tolerance = max(TOLERANCES[precision], SINGLE_MESH if ml_precision == "mixed" else 0.0)
    assert_same_on_cuda(mixed.system, positions, precision, tolerance)


@pytest.mark.parametrize("precision", ["double", "mixed"])
def test_a_qm_region_gives_the_same(methanol_in_water, precision):
    topology, system, positions, atoms = methanol_in_water
    hamiltonian = Hamiltonian(
        [Term(PySCFPotential("hf", "sto-3g"), Region("methanol", atoms, charge=0), embedding="electrostatic")]
    )
    mixed = create_mixed_system(topology, system, hamiltonian)
    assert_same_on_cuda(mixed.system, positions, precision, TOLERANCES[precision], n_geometries=1)


def test_forces_are_the_derivative_of_the_energy(methanol_in_water, backend):
    topology, system, positions, atoms = methanol_in_water
    model = MLPotential(network(METHANOL), atomic_numbers=METHANOL, embeddings=["electrostatic"])
    region = Region("methanol", atoms, charge=0)
    hamiltonian = Hamiltonian([Term(model, region, embedding="electrostatic")])
    mixed = create_mixed_system(topology, system, hamiltonian, ml_backend=backend)
    context = context_on(mixed.system, positions, "CUDA", "double")
    group = {mixed.force_group("methanol/ML")}
    _, forces = at(context, positions, group)
    rng = np.random.default_rng(2)
    for _ in range(4):
        direction = rng.standard_normal(positions.shape)
        direction[: atoms[0]] *= 0.1
        slope = central_difference(lambda x: at(context, x, group)[0], positions, direction, 1e-4, points=4)
        assert slope == pytest.approx(-(forces * direction).sum(), rel=1e-5)


def test_multiple_time_steps_end_at_the_same_place(methanol_in_water, backend):
    topology, system, positions, atoms = methanol_in_water
    model = MLPotential(network(METHANOL), atomic_numbers=METHANOL, embeddings=["electrostatic"])
    region = Region("methanol", atoms, charge=0)
    embedded = {"region": region, "embedding": "electrostatic"}
    hamiltonian = Hamiltonian(
        [
            Term(model, **embedded),
            Term(PySCFPotential("hf", "sto-3g"), coefficient=1.0, **embedded),
            Term(model, coefficient=-1.0, name="methanol/ML in QM", **embedded),
        ]
    )
    mixed = create_mixed_system(topology, system, hamiltonian, ml_backend=backend)
    ends = []
    for platform, precision in (("Reference", None), ("CUDA", "double")):
        integrator = MultipleTimeStepIntegrator(mixed, None, 0.0, 0.001, inner_steps=2)
        velocities = np.zeros_like(positions)
        context = context_on(mixed.system, positions, platform, precision, integrator=integrator, velocities=velocities)
        integrator.step(2)
        ends.append(context.getState(positions=True).getPositions(asNumpy=True)._value)
    moved = np.abs(ends[0] - positions).max()
    np.testing.assert_allclose(ends[1], ends[0], rtol=0.0, atol=1e-5 * moved)


@pytest.mark.parametrize("ml_precision", ["double", "mixed"])
def test_a_step_of_fixed_shapes_on_the_gpu_gives_the_same(methanol_in_water, ml_precision):
    topology, system, positions, atoms = methanol_in_water
    model = MLPotential(network(METHANOL, dtype=torch.float64), atomic_numbers=METHANOL, embeddings=["electrostatic"])
    hamiltonian = Hamiltonian([Term(model, Region("methanol", atoms, charge=0), embedding="electrostatic")])
    options = {"ml_backend": "pythonforce", "ml_precision": ml_precision}
    ordinary = create_mixed_system(topology, system, hamiltonian, **options)
    static = create_mixed_system(topology, system, hamiltonian, ml_step="static", **options)
    reference = context_on(ordinary.system, positions, "Reference")
    cuda = context_on(static.system, positions, "CUDA", "double")
    tolerance = max(TOLERANCES["double"], SINGLE_MESH if ml_precision == "mixed" else 0.0)
    rng = np.random.default_rng(1)
    for _ in range(3):
        moved = positions + 0.002 * rng.standard_normal(positions.shape)
        expected, expected_forces = at(reference, moved)
        energy, forces = at(cuda, moved)
        np.testing.assert_allclose(forces, expected_forces, rtol=0.0, atol=tolerance * np.abs(expected_forces).max())
        assert energy == pytest.approx(expected, rel=tolerance)


@pytest.mark.parametrize("embedding", ["mechanical", "electrostatic"])
@pytest.mark.parametrize("ml_precision", ["double", "mixed"])
def test_a_replayed_step_on_the_gpu_gives_the_same(methanol_in_water, ml_precision, embedding):
    topology, system, positions, atoms = methanol_in_water
    model = MLPotential(network(METHANOL), atomic_numbers=METHANOL, embeddings=["electrostatic", "mechanical"])
    hamiltonian = Hamiltonian([Term(model, Region("methanol", atoms, charge=0), embedding=embedding)])
    options = {"ml_backend": "pythonforce", "ml_precision": ml_precision}
    ordinary = create_mixed_system(topology, system, hamiltonian, **options)
    replayed = create_mixed_system(topology, system, hamiltonian, ml_step="graph", **options)
    reference = context_on(ordinary.system, positions, "Reference")
    cuda = context_on(replayed.system, positions, "CUDA", "double")
    tolerance = max(TOLERANCES["double"], SINGLE_MESH if ml_precision == "mixed" else 0.0)
    rng = np.random.default_rng(1)
    for scale in (1.0, 1.0, 1.01, 0.99):  # one recording serves all boxes
        moved = scale * (positions + 0.002 * rng.standard_normal(positions.shape))
        box = scale * np.array(system.getDefaultPeriodicBoxVectors().value_in_unit(unit.nanometer))
        for context in (reference, cuda):
            context.setPeriodicBoxVectors(*box)
        expected, expected_forces = at(reference, moved)
        energy, forces = at(cuda, moved)
        np.testing.assert_allclose(forces, expected_forces, rtol=0.0, atol=tolerance * np.abs(expected_forces).max())
        assert energy == pytest.approx(expected, rel=tolerance)


def test_a_replayed_step_is_recorded_again_when_a_capacity_grows(methanol_in_water):
    topology, system, positions, atoms = methanol_in_water
    model = MLPotential(network(METHANOL), atomic_numbers=METHANOL, embeddings=["electrostatic"])
    hamiltonian = Hamiltonian([Term(model, Region("methanol", atoms, charge=0), embedding="electrostatic")])
    mixed = create_mixed_system(topology, system, hamiltonian, ml_step="graph")
    term = mixed.terms["methanol/ML"].runner.region_term
    geometry = Geometry(positions, np.array(system.getDefaultPeriodicBoxVectors().value_in_unit(unit.nanometer)))
    first = term.compute(geometry)
    term.capacity = replace(term.capacity, sources=8, charges=8)
    term._step = None
    again = term.compute(geometry)
    assert again[0] == pytest.approx(first[0], rel=1e-10)
    np.testing.assert_allclose(again[1], first[1], rtol=0.0, atol=1e-10 * np.abs(first[1]).max())
    assert term.capacity.sources > 8


@pytest.mark.slow
def test_a_network_compiled_for_the_gpu_gives_the_same(methanol_in_water, tmp_path, monkeypatch):
    monkeypatch.setenv("QMMLMM_CACHE", str(tmp_path))
    topology, system, positions, atoms = methanol_in_water
    model = MLPotential(network(METHANOL), atomic_numbers=METHANOL, embeddings=["electrostatic"])
    compile_network(model.network, "surrounded", "cuda")
    hamiltonian = Hamiltonian([Term(model, Region("methanol", atoms, charge=0), embedding="electrostatic")])
    geometry = Geometry(positions, np.array(system.getDefaultPeriodicBoxVectors().value_in_unit(unit.nanometer)))
    found = []
    for step, compiled in (("static", False), ("static", True), ("graph", True)):
        mixed = create_mixed_system(topology, system, hamiltonian, ml_step=step, ml_compiled=compiled)
        found.append(mixed.terms["methanol/ML"].runner.region_term.compute(geometry))
    for energy, forces in found[1:]:
        assert energy == pytest.approx(found[0][0], rel=1e-10)
        np.testing.assert_allclose(forces, found[0][1], rtol=0.0, atol=1e-9 * np.abs(found[0][1]).max())
