"""Compiled networks, against the lists of operations."""

from __future__ import annotations

import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from qmmlmm import Hamiltonian, MLPotential, Region, Term, create_mixed_system
from qmmlmm.embedding.compiled_cache import write_compiled
from qmmlmm.embedding.torch_term import TorchTerm
from qmmlmm.errors import MissingDependencyError, PotentialError
from qmmlmm.geometry import Geometry
from qmmlmm.ml import compiled_network
from qmmlmm.ml.compiled_network import compile_network, find_network, load_compiled, network_key
from qmmlmm.ml.network_file import network_checksum
from qmmlmm.ml.recorded_network import ALL_OPERATIONS, RecordedNetwork, needed_operations, operations_of
from qmmlmm.ml.response_network import ResponseNetwork
from qmmlmm.ml.response_settings import ResponseSettings
from tests.ml.networks import network, network_inputs
from tests.toy_systems import molecule_among_ions

SAME_NUMBERS = 1e-10  # relative to the largest value, float64; what compile_network promises
TINY = ResponseSettings(features=4, layers=1, radial_functions=4, near_cutoff=4.5, near_functions=2)
# As few operations as possible, for tests of what is called and not of its numbers.
QUICK = ResponseSettings(
    features=4, layers=1, radial_functions=4, near_cutoff=0.0, near_features=0, tensor_features=0, long_range=False
)
TINY_NUMBERS = [1, 8, 1]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("QMMLMM_CACHE", str(tmp_path / "cache"))


# Not where torch.export is called, which needs what `quick_torch` leaves out.
quick = pytest.mark.usefixtures("without_profiling")
# Without its profiling executor TorchScript leaves energies made under no_grad in the graph.
scalar = pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad=True to a scalar")

LISTS = {}


def listed_once(model, name):
    """The list of operations of a network, which is made once for all tests: it takes a second."""
    key = (network_checksum(model), name)
    if key not in LISTS:
        LISTS[key] = operations_of(model, name)
    return LISTS[key]


@pytest.fixture
def stand_in(cache, monkeypatch):
    """Instead of a compiler: what is written is a name, and what is loaded under it the list of operations."""
    calls = []
    lists = {}
    for module in ("compiled_network", "recorded_network"):
        monkeypatch.setattr(f"qmmlmm.ml.{module}.operations_of", listed_once)

    def compile_stand_in(operations, examples):
        lists[str(len(lists))] = operations
        return str(len(lists) - 1).encode()

    def load(content):
        def call(inputs):
            calls.append(content)
            return list(lists[content.decode()](*inputs))

        return call

    monkeypatch.setattr(compiled_network, "_compile", compile_stand_in)
    monkeypatch.setattr(compiled_network, "load_compiled", load)
    monkeypatch.setattr(compiled_network, "cpp_compiler", lambda: "g++")
    return calls


def tiny(members=1, **options):
    torch.manual_seed(3)
    model = ResponseNetwork(TINY_NUMBERS, [(0, 1), (1, 2)], QUICK, members=members, dtype=torch.float64)
    return MLPotential(model, atomic_numbers=TINY_NUMBERS, embeddings=["electrostatic", "mechanical"], **options)


def layout_of(potential, embedding="electrostatic", ml_backend="pythonforce"):
    case = molecule_among_ions(True)
    hamiltonian = Hamiltonian([Term(potential, Region("mol", [0, 1, 2]), embedding=embedding)])
    mixed = create_mixed_system(case.topology, case.system, hamiltonian, ml_backend=ml_backend)
    return case, mixed


def test_the_key_is_of_weights_settings_versions_and_processor():
    model = network()
    key = network_key(model, "alone", "cpu")
    assert network_key(model, "surrounded", "cpu") != key
    assert network_key(network(dtype=torch.float32), "alone", "cpu") != key
    assert network_key(network(members=1), "alone", "cpu") != key
    with torch.no_grad():
        model.embedding[0, 0, 0] += 1e-9
    changed = network_key(model, "alone", "cpu")
    assert [name for name in key if key[name] != changed[name]] == ["network"]
    assert set(key) >= {"torch", "processor", "atomic_numbers", "dtype", "code", "members"}


@pytest.mark.parametrize("name", ["torch", "code", "processor"])
def test_what_was_compiled_for_another_version_or_processor_is_not_used(cache, monkeypatch, name):
    potential = tiny()
    write_compiled(network_key(potential.network, "alone", "cpu"), b"code")
    assert find_network(potential.network, "alone").content is not None
    if name == "torch":
        monkeypatch.setattr(torch, "__version__", "2.99")
    else:
        attribute = {"code": "_code_checksum", "processor": "_processor_kind"}[name]
        monkeypatch.setattr(compiled_network, attribute, lambda *_: "other")
    assert find_network(potential.network, "alone").content is None


@quick
@scalar
def test_a_term_uses_what_is_compiled_and_says_so(stand_in):
    potential = tiny()
    case, mixed = layout_of(potential)
    (before,) = mixed.describe()["terms"]
    assert "'qmmlmm compile' makes one" in before["compiled"]["network"]
    compile_network(potential.network, "surrounded")
    stand_in.clear()
    _, mixed = layout_of(tiny(), ml_backend="auto")
    (after,) = mixed.describe()["terms"]
    assert after["compiled"]["network"] == "yes"
    assert after["backend"] == "PythonForce"
    term = mixed.terms["mol/ML"].runner.region_term
    geometry = Geometry(case.positions, case.box)
    found = term.compute(geometry)
    assert len(stand_in) == 1
    expected = TorchTerm(term.layout, potential).compute(geometry)
    assert found[0] == expected[0]
    np.testing.assert_array_equal(found[1], expected[1])
    # Mechanical terms need another list.
    _, mixed = layout_of(tiny(), "mechanical")
    assert "makes one" in mixed.describe()["terms"][0]["compiled"]["network"]


@quick
@scalar
@pytest.mark.slow
def test_committee_and_interaction_of_a_term_with_a_compiled_network_are_the_same(stand_in):
    potential = tiny(members=2)
    for name in ("surrounded", "each_surrounded"):
        compile_network(potential.network, name)
    case, mixed = layout_of(potential)
    term = mixed.terms["mol/ML"].runner.region_term
    plain = TorchTerm(term.layout, potential)
    geometry = Geometry(case.positions, case.box)
    stand_in.clear()
    assert torch.equal(term.committee().member_forces(geometry), plain.committee().member_forces(geometry))
    assert len(stand_in) == 1
    one, other = term.interaction(geometry), plain.interaction(geometry)
    assert one.embedded_energy == other.embedded_energy
    np.testing.assert_array_equal(one.source_energies, other.source_energies)
    assert len(stand_in) == 3


def test_compiled_code_with_other_results_is_not_written(stand_in, monkeypatch):
    potential = tiny()
    monkeypatch.setattr(compiled_network, "_geometry_like", lambda examples: (*examples[:1], examples[1] * 1.1))
    original = compiled_network.load_compiled
    wrong = lambda content: lambda inputs: [1.0001 * result for result in original(content)(inputs)]  # noqa: E731
    monkeypatch.setattr(compiled_network, "load_compiled", wrong)
    with pytest.raises(PotentialError, match=r"has other results \(result 0 differs by 1\.0e-04"):
        compile_network(potential.network, "alone")
    assert find_network(potential.network, "alone").content is None


def test_what_cannot_be_compiled_is_an_error(cache, monkeypatch):
    def fail(*arguments, **options):
        raise ValueError("no such thing")

    monkeypatch.setattr(torch.export, "export", fail)
    monkeypatch.setattr(compiled_network, "cpp_compiler", lambda: "g++")
    with pytest.raises(PotentialError, match=r"cannot compile the network: ValueError\('no such thing'\)"):
        compile_network(tiny().network, "alone")


def test_a_program_that_cannot_be_loaded_is_left_out_with_a_warning_in_the_log(cache, caplog):
    with pytest.raises(PotentialError, match="a compiled network cannot be loaded"):
        load_compiled(b"nothing of the kind")
    model = tiny().network
    write_compiled(network_key(model, "alone", "cpu"), b"nothing of the kind")
    assert compiled_network.compiled_module(model, "alone") is None
    assert "the network is evaluated without it" in caplog.text


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_a_network_for_cuda_is_compiled_where_cuda_is(cache):
    with pytest.raises(MissingDependencyError, match="there is none"):
        compile_network(tiny().network, "alone", "cuda")


def test_a_module_of_ones_own_says_that_it_is_not_compiled():
    class Own(torch.nn.Module):
        def forward(self, positions):
            return (positions**2).sum()

    potential = MLPotential(Own(), elements=[1])
    assert "only networks of qmmlmm train" in potential.not_compiled_because(False)


@quick
@scalar
def test_only_what_a_term_needs_is_recorded(monkeypatch):
    recorded = []

    def watched(model, name):
        recorded.append(name)
        return listed_once(model, name)

    monkeypatch.setattr("qmmlmm.ml.recorded_network.operations_of", watched)
    potential = tiny(members=2)
    case, mixed = layout_of(potential)
    term = TorchTerm(mixed.terms["mol/ML"].layout, potential)
    assert recorded == []
    geometry = Geometry(case.positions, case.box)
    term.compute(geometry)
    term.interaction(geometry)
    assert recorded == ["surrounded"]
    term.committee().member_forces(geometry)
    assert recorded == ["surrounded", "each_surrounded"]


def test_a_term_needs_the_lists_of_its_embedding():
    one, two = network(members=1), network(members=2)
    assert needed_operations(one, True, False) == needed_operations(one, True, True) == ("surrounded",)
    assert needed_operations(two, False, True) == ("each_alone",)
    assert needed_operations(two, True, True) == ("each_surrounded",)
    two.separate_parts.fill_(True)
    assert needed_operations(two, True, True) == ("each_surrounded", "each_alone")
    blind = network(ResponseSettings(features=4, layers=1, response=False), members=1)
    assert needed_operations(blind, True, False) == ("alone",)


def test_a_list_that_was_not_recorded_is_an_error():
    module = torch.jit.script(RecordedNetwork(network(TINY), []).eval())
    given = network_inputs()
    with pytest.raises(torch.jit.Error, match="not recorded for a region in a field"):
        module(given)
    del given["potential"]
    with pytest.raises(torch.jit.Error, match="not recorded for a region in a vacuum"):
        module(given)


# TorchScript leaves energies made under no_grad in the graph.
@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad=True to a scalar")
@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_compiled_networks_have_the_same_energies_and_derivatives(cache):
    model = network(TINY)
    # The lists are compiled each by itself; the last is the most of them all.
    names = ["surrounded", "each_surrounded"]
    for name in names:
        compile_network(model, name)
    compiled = {name: compiled_network.compiled_module(model, name) for name in names}
    assert None not in compiled.values()
    given = network_inputs()
    keys = ("positions", "potential", "field", "near_positions", "near_charges")
    leaves = [given[key].requires_grad_(True) for key in keys]
    for extra in ({}, {"each_member": torch.ones((), dtype=torch.float64)}):
        found = []
        for parts in (compiled, None):
            module = torch.jit.script(RecordedNetwork(model, names, parts).eval())
            result = module(given | extra)
            derived = [
                torch.autograd.grad(energy, leaves, retain_graph=True)
                for energy in (result["member_energies"] if extra else [result["energy"]])
            ]
            found.append(
                [result["energy"], result["member_energies"], *(gradient for row in derived for gradient in row)]
            )
        for one, other in zip(*found, strict=True):
            difference = (one - other).abs().max() / other.abs().max()
            assert float(difference) < SAME_NUMBERS
    assert set(names) < set(ALL_OPERATIONS)


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="Python has no distutils from 3.12 on")
def test_warnings_of_distutils_do_not_end_a_compilation(monkeypatch):
    monkeypatch.setenv("SETUPTOOLS_USE_DISTUTILS", "stdlib")
    # The modules of setuptools that torch imports to compile, where warnings are errors as in these tests.
    code = (
        "import warnings\n"
        "from qmmlmm.ml import compiled_network\n"
        "warnings.simplefilter('error')\n"
        "with compiled_network._of_the_compiler():\n"
        "    import setuptools.command.build_ext\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
