from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import openmm
import pytest
import torch

from qmmlmm import Hamiltonian, MLPotential, Region, Term, create_mixed_system
from qmmlmm.embedding.torch_term import TorchTerm
from qmmlmm.errors import EvaluationError, HamiltonianError, NonFiniteError
from qmmlmm.geometry import Geometry
from qmmlmm.mm.torch_force import unavailable_because
from tests.contexts import energy_and_forces, make_context, system_energy_and_forces
from tests.finite_differences import central_difference
from tests.torch_backends import needs_torch_force
from tests.toy_potentials import Fails, NotANumberBeyond, NotANumberInField, Springs, SpringsInField
from tests.toy_systems import molecule_among_ions

pytestmark = needs_torch_force
ROOT = Path(__file__).resolve().parents[2]

SAME_MODULE = 1e-12  # relative; one TorchScript module, frozen by TorchForce and not by PythonForce
SAME_PROCESS_TYPE = 1e-13  # relative; the same program in another process

PROGRAM = """
import warnings
warnings.simplefilter("error")
{imports}
from qmmlmm.mm.torch_force import unavailable_because
assert unavailable_because() is None, unavailable_because()
from tests.contexts import system_energy_and_forces
from tests.toy_potentials import SpringsInField
from tests.toy_systems import molecule_among_ions
case = molecule_among_ions()
potential = qmmlmm.MLPotential(SpringsInField(), elements=[1, 8], embeddings=["electrostatic"])
term = qmmlmm.Term(potential, qmmlmm.Region("mol", [0, 1, 2]), embedding="electrostatic")
mixed = qmmlmm.create_mixed_system(case.topology, case.system, qmmlmm.Hamiltonian([term]))
assert type(mixed.system.getForce(mixed.system.getNumForces() - 1)).__name__ in ("Force", "TorchForce")
assert not mixed.terms["mol/ML"].runner.runs_in_python
energy, forces = system_energy_and_forces(mixed.system, case.positions)
print(repr(float(energy)), repr(float(abs(forces).sum())))
"""


def mixed_system(case, embedding="electrostatic", backend="torchforce", module=None):
    module = module or SpringsInField()
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
def test_torch_force_runs_in_whatever_order_packages_are_imported(imports):
    program = PROGRAM.format(imports=imports)
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
    )
    assert result.returncode == 0, result.stderr
    case = molecule_among_ions()
    energy, forces = system_energy_and_forces(mixed_system(case).system, case.positions)
    expected = [energy, abs(forces).sum()]
    assert [float(x) for x in result.stdout.split()] == pytest.approx(expected, rel=SAME_PROCESS_TYPE)


@pytest.mark.parametrize(
    ("periodic", "embedding"), [(True, "electrostatic"), (False, "electrostatic"), (True, "mechanical")]
)
def test_torch_force_and_python_force_give_the_same(periodic, embedding):
    case = molecule_among_ions(periodic)
    module = SpringsInField() if embedding == "electrostatic" else Springs()
    one = mixed_system(case, embedding, "torchforce", module)
    other = mixed_system(case, embedding, "pythonforce", module)
    assert one.describe()["terms"][0]["backend"] != other.describe()["terms"][0]["backend"]
    contexts = [make_context(mixed.system, case.positions) for mixed in (one, other)]
    rng = np.random.default_rng(1)
    for _ in range(3):  # the second and third time TorchScript runs what the first one profiled
        positions = case.positions + 0.01 * rng.standard_normal(case.positions.shape)
        seen = []
        for context in contexts:
            context.setPositions(positions)
            seen.append(energy_and_forces(context))
        assert_same(*seen)


def test_forces_through_torch_force_are_the_derivative_of_its_energy():
    step, tolerance = 1e-5, 1e-6  # nm; relative: third derivatives of the springs times step^2 / 6
    case = molecule_among_ions()
    mixed = mixed_system(case)
    context = make_context(mixed.system, case.positions)
    groups = {mixed.force_group("mol/ML")}

    def energy(positions):
        context.setPositions(positions)
        return context.getState(energy=True, groups=groups).getPotentialEnergy()._value

    _, forces = energy_and_forces(context, groups)
    rng = np.random.default_rng(5)
    for group in (slice(0, 3), slice(3, 13), slice(13, None)):
        direction = np.zeros_like(forces)
        direction[group] = rng.standard_normal(direction[group].shape)
        expected = -central_difference(energy, case.positions, direction, step)
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


def test_without_torch_force_there_is_the_same_result_and_no_warning(other_torch):
    case = molecule_among_ions()
    region, other = Region("mol", [0, 1, 2]), Region("ion", [5])
    field = MLPotential(SpringsInField(), elements=[1, 8], embeddings=["electrostatic"])
    single = MLPotential(Springs(), elements=[11])
    hamiltonian = Hamiltonian(
        [Term(field, region, embedding="electrostatic"), Term(single, other, embedding="mechanical")]
    )
    python = create_mixed_system(case.topology, case.system, hamiltonian)
    found = system_energy_and_forces(python.system, case.positions)
    assert python.terms["mol/ML"].runner.evaluations == 1
    torch.__version__ = "2.9.1"
    unavailable_because.cache_clear()
    direct = create_mixed_system(case.topology, case.system, hamiltonian, ml_backend="torchforce")
    assert_same(found, system_energy_and_forces(direct.system, case.positions))


@pytest.mark.usefixtures("other_torch")
def test_torch_force_that_was_asked_for_and_is_not_there_is_an_error():
    with pytest.raises(HamiltonianError, match="cannot run through TorchForce: openmmtorch needs torch 2.9"):
        mixed_system(molecule_among_ions(periodic=False))


def test_another_version_of_openmm_is_the_reason(monkeypatch):
    monkeypatch.setattr(openmm.version, "short_version", "8.6.1")
    unavailable_because.cache_clear()
    try:
        assert unavailable_because() == "openmmtorch needs OpenMM 8.5, this is OpenMM 8.6.1"
    finally:
        monkeypatch.undo()
        unavailable_because.cache_clear()


def test_a_package_that_is_missing_is_the_reason(monkeypatch):
    monkeypatch.setitem(sys.modules, "openmmtorch", None)
    unavailable_because.cache_clear()
    try:
        assert str(unavailable_because()).startswith("openmmtorch cannot be imported: ")
    finally:
        monkeypatch.undo()
        unavailable_because.cache_clear()


def test_a_plug_in_that_does_not_load_is_the_reason(monkeypatch):
    def refused(*arguments):
        raise openmm.OpenMMException("there is no such kernel")

    monkeypatch.setattr(openmm, "Context", refused)
    unavailable_because.cache_clear()
    try:
        assert str(unavailable_because()).startswith("the plug-in of openmmtorch was not loaded: ")
    finally:
        monkeypatch.undo()
        unavailable_because.cache_clear()


@pytest.mark.parametrize("backend", ["torchforce", "pythonforce"])
def test_a_system_survives_its_serialiser(backend):
    case = molecule_among_ions()
    mixed = mixed_system(case, backend=backend)
    before = system_energy_and_forces(mixed.system, case.positions)
    again = openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(mixed.system))
    assert_same(system_energy_and_forces(again, case.positions), before)


@pytest.mark.parametrize("backend", ["torchforce", "pythonforce"])
def test_a_system_can_be_copied(backend):
    case = molecule_among_ions()
    mixed = mixed_system(case, backend=backend)
    before = system_energy_and_forces(mixed.system, case.positions)
    assert_same(system_energy_and_forces(copy.deepcopy(mixed.system), case.positions), before)
    whole = copy.deepcopy(mixed)
    assert_same(system_energy_and_forces(whole.system, case.positions), before)
    assert whole.force_group("mol/ML") == mixed.force_group("mol/ML")


def test_a_term_in_python_survives_pickling():
    case = molecule_among_ions()
    mixed = mixed_system(case, backend="pythonforce")
    term = mixed.terms["mol/ML"].runner.region_term
    assert isinstance(term, TorchTerm)
    again = pickle.loads(pickle.dumps(term))
    assert again.name == "mol/ML"
    geometry = Geometry(case.positions, case.box)
    assert_same(again.compute(geometry), term.compute(geometry))


def test_a_model_that_gives_no_number_through_torch_force_is_an_error_that_names_the_term():
    case = molecule_among_ions(periodic=False)
    mixed = mixed_system(case, "mechanical", module=NotANumberBeyond())
    system_energy_and_forces(mixed.system, case.positions)
    apart = case.positions.copy()
    apart[0] -= 0.5
    with pytest.raises(openmm.OpenMMException, match="NonFiniteError: term 'mol/ML' has an energy or forces") as caught:
        system_energy_and_forces(mixed.system, apart)
    with pytest.raises(NonFiniteError, match="^term 'mol/ML' has an energy or forces that are not numbers$"):
        mixed.raise_original(caught.value)


def test_a_model_that_gives_no_number_through_python_force_is_an_error_of_its_class():
    case = molecule_among_ions(periodic=False)
    mixed = mixed_system(case, "mechanical", "pythonforce", NotANumberBeyond())
    system_energy_and_forces(mixed.system, case.positions)
    apart = case.positions.copy()
    apart[0] -= 0.5
    with pytest.raises(openmm.OpenMMException, match="mol/ML") as caught:
        system_energy_and_forces(mixed.system, apart)
    with pytest.raises(NonFiniteError, match="term 'mol/ML' has an energy or forces that are not numbers"):
        mixed.raise_original(caught.value)


def test_a_field_that_gives_no_number_is_an_error_that_names_the_term():
    case = molecule_among_ions(periodic=False)
    mixed = mixed_system(case, module=NotANumberInField())
    with pytest.raises(openmm.OpenMMException, match="NonFiniteError: term 'mol/ML' has an energy or"):
        system_energy_and_forces(mixed.system, case.positions)


def test_another_error_of_a_model_keeps_its_text():
    case = molecule_among_ions(periodic=False)
    for backend in ("torchforce", "pythonforce"):
        mixed = mixed_system(case, "mechanical", backend, Fails())
        with pytest.raises(openmm.OpenMMException, match="was asked for something that it cannot do"):
            system_energy_and_forces(mixed.system, case.positions)


BACKENDS = pytest.mark.parametrize("backend", ["torchforce", "pythonforce"])


def original(mixed, error):
    """Return the exception that `raise_original` raises."""
    with pytest.raises(EvaluationError) as caught:
        mixed.raise_original(error)
    return caught.value


@BACKENDS
@pytest.mark.parametrize("embedding", ["electrostatic", "mechanical"])
def test_positions_that_are_not_numbers_are_an_error_and_do_not_end_the_process(backend, embedding):
    case = molecule_among_ions()
    mixed = mixed_system(case, embedding, backend, SpringsInField() if embedding == "electrostatic" else Springs())
    positions = case.positions.copy()
    positions[[1, 7], 2] = np.nan
    with pytest.raises(openmm.OpenMMException) as caught:
        system_energy_and_forces(mixed.system, positions, groups={mixed.force_group("mol/ML")})
    found = original(mixed, caught.value)
    assert type(found) is NonFiniteError
    assert "positions that are not numbers reached term 'mol/ML', on atoms 1, 7" in str(found)


@BACKENDS
@pytest.mark.filterwarnings("ignore:region 'far' has charge")
@pytest.mark.parametrize("embedding", ["electrostatic", "mechanical"])
def test_a_region_wider_than_half_the_box_is_an_error_with_every_backend(backend, embedding):
    case = molecule_among_ions()
    potential = MLPotential(
        SpringsInField() if embedding == "electrostatic" else Springs(), elements=[1, 8, 11], embeddings=[embedding]
    )
    term = Term(potential, Region("far", [0, 1, 2, 12]), embedding=embedding)
    mixed = create_mixed_system(case.topology, case.system, Hamiltonian([term]), ml_backend=backend)
    positions = case.positions.copy()
    near = positions[1] + np.array([0.0, 0.0, 0.5])
    positions[12] = near + case.box[1]
    assert np.isfinite(system_energy_and_forces(mixed.system, positions)[0])
    positions[12] = positions[1] + np.array([0.95, 0.0, 0.0])
    with pytest.raises(openmm.OpenMMException) as caught:
        system_energy_and_forces(mixed.system, positions)
    found = original(mixed, caught.value)
    assert type(found) is EvaluationError
    assert "term 'mol/ML'" not in str(found)
    assert "term 'far/ML': the region is wider than half the box: MOL1:A0" in str(found)


@BACKENDS
def test_an_error_of_a_model_has_the_same_class_with_every_backend(backend):
    case = molecule_among_ions(periodic=False)
    mixed = mixed_system(case, "mechanical", backend, Fails())
    with pytest.raises(openmm.OpenMMException) as caught:
        system_energy_and_forces(mixed.system, case.positions)
    found = original(mixed, caught.value)
    assert type(found) is EvaluationError
    assert "term 'mol/ML'" in str(found)
    assert "the model failed: " in str(found)
    assert "was asked for something that it cannot do" in str(found)


def test_an_error_that_is_not_of_torch_is_raised_as_it_is():
    mixed = mixed_system(molecule_among_ions(periodic=False), "mechanical", module=Springs())
    with pytest.raises(openmm.OpenMMException, match="^Particle coordinate is NaN$"):
        mixed.raise_original(openmm.OpenMMException("Particle coordinate is NaN"))


class Watcher(openmm.MinimizationReporter):
    def report(self, iteration, x, gradient, values):
        return False


def test_a_minimisation_with_a_reporter_runs_in_python_and_is_refused_with_advice_by_torch_force():
    """OpenMM holds Python's lock then, with which torch computes no forces."""
    case = molecule_among_ions(periodic=False)
    mixed = mixed_system(case, "mechanical", "pythonforce", Springs())
    context = make_context(mixed.system, case.positions)
    openmm.LocalEnergyMinimizer.minimize(context, 10.0, 2, Watcher())
    mixed = mixed_system(case, "mechanical", "torchforce", Springs())
    context = make_context(mixed.system, case.positions)
    openmm.LocalEnergyMinimizer.minimize(context, 10.0, 2)
    with pytest.raises(openmm.OpenMMException, match="pythonforce") as caught:
        openmm.LocalEnergyMinimizer.minimize(context, 10.0, 2, Watcher())
    assert "term 'mol/ML': the call holds Python's lock" in str(original(mixed, caught.value))


def test_derivatives_of_parameters_raise_the_class_of_a_term():
    case = molecule_among_ions(periodic=False)
    potential = MLPotential(NotANumberBeyond(), elements=[1, 8])
    region = Region("mol", [0, 1, 2])
    terms = [
        Term(potential, region, embedding="mechanical", coefficient="1-l", name="a"),
        Term(potential, region, embedding="mechanical", coefficient="l", name="b"),
    ]
    mixed = create_mixed_system(case.topology, case.system, Hamiltonian(terms, parameters={"l": 0.5}))
    apart = case.positions.copy()
    apart[0] -= 0.5
    with pytest.raises(NonFiniteError, match="term 'a' has an energy"):
        mixed.parameter_derivatives(make_context(mixed.system, apart))
