from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import openmm
import pytest
import torch

from qmmlmm import Hamiltonian, MLPotential, Region, Term, create_mixed_system
from qmmlmm.errors import HamiltonianError, NonFiniteError, QmmlmmWarning
from qmmlmm.ml import torch_force
from qmmlmm.ml.term_module import TorchTerm
from qmmlmm.ml.torch_force import unavailable_because

ROOT = Path(__file__).resolve().parents[2]

SAME_MODULE = 1e-12  # relative; one TorchScript module, frozen by TorchForce and not by PythonForce
SAME_PROCESS_TYPE = 1e-13  # relative; the same program in another process

PROGRAM = """
import importlib.util, warnings
warnings.simplefilter("error")
{imports}
from qmmlmm.ml.torch_force import unavailable_because
assert unavailable_because() is None, unavailable_because()
specification = importlib.util.spec_from_file_location("models", "tests/ml/conftest.py")
models = importlib.util.module_from_spec(specification)
specification.loader.exec_module(models)
case = models.solution("box")
potential = qmmlmm.MLPotential(models.SpringsInField(), elements=[1, 8], embeddings=["electrostatic"])
term = qmmlmm.Term(potential, qmmlmm.Region("mol", [0, 1, 2]), embedding="electrostatic")
mixed = qmmlmm.create_mixed_system(case.topology, case.system, qmmlmm.Hamiltonian([term]))
assert type(mixed.system.getForce(mixed.system.getNumForces() - 1)).__name__ in ("Force", "TorchForce")
assert not mixed._callbacks
energy, forces = models.energy_and_forces(mixed.system, case.positions)
print(repr(float(energy)), repr(float(abs(forces).sum())))
"""


def mixed_system(models, case, embedding="electrostatic", backend="torchforce", module=None):
    module = module or models.SpringsInField()
    potential = MLPotential(module, elements=[1, 8], embeddings=[embedding])
    hamiltonian = Hamiltonian([Term(potential, Region("mol", [0, 1, 2]), embedding=embedding)])
    return create_mixed_system(case.topology, case.system, hamiltonian, ml_backend=backend)


def assert_same(found, expected, tolerance=SAME_MODULE):
    assert found[0] == pytest.approx(expected[0], rel=tolerance)
    np.testing.assert_allclose(found[1], expected[1], rtol=0, atol=tolerance * abs(expected[1]).max())


@pytest.mark.parametrize(
    "imports",
    [
        "import openmm\nimport torch\nimport qmmlmm",
        "import torch\nimport openmm\nimport qmmlmm",
        "import qmmlmm\nimport openmm\nimport torch",
    ],
    ids=["openmm first", "torch first", "qmmlmm first"],
)
def test_torch_force_runs_in_whatever_order_packages_are_imported(models, imports):
    program = PROGRAM.format(imports=imports)
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
    )
    assert result.returncode == 0, result.stderr
    case = models.solution("box")
    energy, forces = models.energy_and_forces(mixed_system(models, case).system, case.positions)
    expected = [energy, abs(forces).sum()]
    assert [float(x) for x in result.stdout.split()] == pytest.approx(expected, rel=SAME_PROCESS_TYPE)


@pytest.mark.parametrize(
    ("shape", "embedding"), [("box", "electrostatic"), (None, "electrostatic"), ("box", "mechanical")]
)
def test_torch_force_and_python_force_give_the_same(models, shape, embedding):
    case = models.solution(shape)
    module = models.SpringsInField() if embedding == "electrostatic" else models.Springs()
    one = mixed_system(models, case, embedding, "torchforce", module)
    other = mixed_system(models, case, embedding, "pythonforce", module)
    assert one.describe()["terms"][0]["backend"] != other.describe()["terms"][0]["backend"]
    contexts = []
    for mixed in (one, other):
        integrator = openmm.VerletIntegrator(0.001)
        contexts.append(openmm.Context(mixed.system, integrator, openmm.Platform.getPlatform("Reference")))
    rng = np.random.default_rng(1)
    for _ in range(3):  # the second and third time TorchScript runs what the first one profiled
        positions = case.positions + 0.01 * rng.standard_normal(case.positions.shape)
        seen = []
        for context in contexts:
            context.setPositions(positions)
            state = context.getState(energy=True, forces=True)
            seen.append((state.getPotentialEnergy()._value, state.getForces(asNumpy=True)._value))
        assert_same(*seen)


def test_forces_through_torch_force_are_the_derivative_of_its_energy(models):
    step, tolerance = 1e-5, 1e-6  # nm; relative: third derivatives of the springs times step^2 / 6
    case = models.solution("box")
    mixed = mixed_system(models, case)
    integrator = openmm.VerletIntegrator(0.001)
    context = openmm.Context(mixed.system, integrator, openmm.Platform.getPlatform("Reference"))

    def state(positions):
        context.setPositions(positions)
        return context.getState(energy=True, forces=True, groups={mixed.force_groups["mol/ML"]})

    forces = state(case.positions).getForces(asNumpy=True)._value
    rng = np.random.default_rng(5)
    for group in (slice(0, 3), slice(3, 13), slice(13, None)):
        direction = np.zeros_like(forces)
        direction[group] = rng.standard_normal(direction[group].shape)
        above = state(case.positions + step * direction).getPotentialEnergy()._value
        below = state(case.positions - step * direction).getPotentialEnergy()._value
        expected = -(above - below) / (2.0 * step)
        scale = abs(forces[group]).max()
        assert (forces * direction).sum() == pytest.approx(expected, abs=tolerance * scale)


@pytest.fixture
def other_torch(monkeypatch):
    """A process in which torch says that it is another version."""
    monkeypatch.setattr(torch, "__version__", "3.1.4+cpu")
    unavailable_because.cache_clear()
    yield
    monkeypatch.undo()
    unavailable_because.cache_clear()


@pytest.mark.usefixtures("other_torch")
def test_another_version_of_torch_is_the_reason():
    assert unavailable_because() == "openmmtorch needs torch 2.9, this is torch 3.1.4"


def test_without_torch_force_there_is_one_warning_and_the_same_result(models, other_torch):
    case = models.solution("box")
    region, other = Region("mol", [0, 1, 2]), Region("ion", [5])
    field = MLPotential(models.SpringsInField(), elements=[1, 8], embeddings=["electrostatic"])
    single = MLPotential(models.Springs(), elements=[11])
    hamiltonian = Hamiltonian(
        [Term(field, region, embedding="electrostatic"), Term(single, other, embedding="mechanical")]
    )
    with pytest.warns(
        QmmlmmWarning, match=r"through openmm.PythonForce, because .* needs torch 2.9, this is torch 3.1.4"
    ) as record:
        fallen_back = create_mixed_system(case.topology, case.system, hamiltonian)
    assert len(record) == 1
    assert record[0].filename == __file__  # it points at the user's line
    found = models.energy_and_forces(fallen_back.system, case.positions)
    assert fallen_back.evaluations("mol/ML") == 1
    torch.__version__ = "2.9.1"
    unavailable_because.cache_clear()
    direct = create_mixed_system(case.topology, case.system, hamiltonian, ml_backend="torchforce")
    assert_same(found, models.energy_and_forces(direct.system, case.positions))


@pytest.mark.usefixtures("other_torch")
def test_torch_force_that_was_asked_for_and_is_not_there_is_an_error(models):
    with pytest.raises(HamiltonianError, match="cannot run through TorchForce: openmmtorch needs torch 2.9"):
        mixed_system(models, models.solution(None))


@pytest.mark.usefixtures("other_torch")
def test_python_force_that_was_asked_for_gives_no_warning(models):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mixed_system(models, models.solution(None), backend="pythonforce")


def test_a_package_that_is_missing_is_the_reason(monkeypatch):
    monkeypatch.setitem(sys.modules, "openmmtorch", None)
    unavailable_because.cache_clear()
    try:
        assert str(unavailable_because()).startswith("openmmtorch cannot be imported: ")
    finally:
        monkeypatch.undo()
        unavailable_because.cache_clear()


def test_a_plug_in_that_does_not_load_is_the_reason(monkeypatch):
    monkeypatch.setattr(torch_force, "_probe", lambda module: False)
    unavailable_because.cache_clear()
    try:
        assert str(unavailable_because()).startswith("the plug-in of openmmtorch was not loaded: ")
    finally:
        monkeypatch.undo()
        unavailable_because.cache_clear()


@pytest.mark.parametrize("backend", ["torchforce", "pythonforce"])
def test_a_system_survives_its_serialiser(models, backend):
    case = models.solution("box")
    mixed = mixed_system(models, case, backend=backend)
    before = models.energy_and_forces(mixed.system, case.positions)
    again = openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(mixed.system))
    assert_same(models.energy_and_forces(again, case.positions), before)


@pytest.mark.parametrize("backend", ["torchforce", "pythonforce"])
def test_a_system_can_be_copied(models, backend):
    case = models.solution("box")
    mixed = mixed_system(models, case, backend=backend)
    before = models.energy_and_forces(mixed.system, case.positions)
    assert_same(models.energy_and_forces(copy.deepcopy(mixed.system), case.positions), before)
    whole = copy.deepcopy(mixed)
    assert_same(models.energy_and_forces(whole.system, case.positions), before)
    assert whole.force_groups == mixed.force_groups


def test_a_term_in_python_survives_pickling(models):
    case = models.solution("box")
    mixed = mixed_system(models, case, backend="pythonforce")
    term = mixed._callbacks["mol/ML"].computation
    assert isinstance(term, TorchTerm)
    again = pickle.loads(pickle.dumps(term))
    assert again.name == "mol/ML"
    found = again.compute_openmm(case.positions, case.box)
    assert_same(found, term.compute_openmm(case.positions, case.box))


def test_a_model_that_gives_no_number_through_torch_force_is_an_error_that_names_the_term(models):
    case = models.solution(None)
    mixed = mixed_system(models, case, "mechanical", module=models.NotANumberBeyond())
    models.energy_and_forces(mixed.system, case.positions)
    apart = case.positions.copy()
    apart[0] -= 0.5
    with pytest.raises(openmm.OpenMMException, match=r"NonFiniteError: energy or forces .* mol/ML") as caught:
        models.energy_and_forces(mixed.system, apart)
    with pytest.raises(openmm.OpenMMException, match="mol/ML"):
        mixed.raise_original(caught.value)


def test_a_model_that_gives_no_number_through_python_force_is_an_error_of_its_class(models):
    case = models.solution(None)
    mixed = mixed_system(models, case, "mechanical", "pythonforce", models.NotANumberBeyond())
    models.energy_and_forces(mixed.system, case.positions)
    apart = case.positions.copy()
    apart[0] -= 0.5
    with pytest.raises(openmm.OpenMMException, match="mol/ML") as caught:
        models.energy_and_forces(mixed.system, apart)
    with pytest.raises(NonFiniteError, match="term 'mol/ML' has an energy or forces that are not numbers"):
        mixed.raise_original(caught.value)


class NotANumberInField(torch.nn.Module):
    def forward(self, positions, potential, field):
        return torch.log(potential - 10.0).sum()


def test_a_field_that_gives_no_number_is_an_error_that_names_the_term(models):
    case = models.solution(None)
    mixed = mixed_system(models, case, module=NotANumberInField())
    with pytest.raises(openmm.OpenMMException, match=r"NonFiniteError: energy or forces .* mol/ML"):
        models.energy_and_forces(mixed.system, case.positions)


class Fails(torch.nn.Module):
    def forward(self, positions):
        if bool(positions[0, 0] < 100.0):
            raise ValueError("the model was asked for something that it cannot do")
        return positions.sum()


def test_another_error_of_a_model_keeps_its_text(models):
    case = models.solution(None)
    for backend in ("torchforce", "pythonforce"):
        mixed = mixed_system(models, case, "mechanical", backend, Fails())
        with pytest.raises(openmm.OpenMMException, match="was asked for something that it cannot do"):
            models.energy_and_forces(mixed.system, case.positions)
