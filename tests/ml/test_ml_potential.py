from __future__ import annotations

import io
import json
import math
import pickle
import zipfile
from pathlib import Path
from typing import Dict  # noqa: UP035  (TorchScript reads it)

import numpy as np
import pytest
import torch

from qmmlmm import Hamiltonian, MLPotential, Region, Term, create_mixed_system
from qmmlmm.coupling.potential import RegionSpecification
from qmmlmm.errors import PotentialError
from qmmlmm.ml.model_file import CHECKSUMS_FILE, FORMAT_VERSION, MODULE_FILE, SETTINGS_FILE, ModelFile, write_model_file
from tests.contexts import system_energy_and_forces
from tests.toy_potentials import Contract, Springs, SpringsInField
from tests.toy_systems import molecule_among_ions

POSITIONS = torch.tensor([[0.0, 0.1, 0.2], [1.5, 0.9, 0.0], [2.8, -0.2, 0.4]], dtype=torch.float64)
POTENTIAL = torch.tensor([0.01, -0.02, 0.03], dtype=torch.float64)
FIELD = torch.tensor([[0.01, 0.0, 0.02], [0.0, -0.01, 0.0], [0.02, 0.01, 0.0]], dtype=torch.float64)


def inputs(embedded=True):
    result = {
        "atomic_numbers": torch.tensor([1, 8, 1]),
        "charge": torch.tensor(-1.0, dtype=torch.float64),
        "multiplicity": torch.tensor(2.0, dtype=torch.float64),
        "positions": POSITIONS,
    }
    return result | ({"potential": POTENTIAL, "field": FIELD} if embedded else {})


def energy(potential, embedded=True):
    return float(potential.module(inputs(embedded))["energy"])


def wrapped(form):
    """A model of each form of forward, and the energy that its own module gives."""
    both = ["mechanical", "electrostatic"]
    if form == "positions":
        module = Springs()
        return module, MLPotential(module, elements=[1, 8]), float(module(POSITIONS).detach())
    if form == "field":
        module = SpringsInField()
        expected = float(module(POSITIONS, POTENTIAL, FIELD).detach())
        return module, MLPotential(module, elements=[1, 8], embeddings=["electrostatic"]), expected
    module = Contract()
    expected = float(module(inputs())["energy"].detach())
    potential = MLPotential(module, atomic_numbers=[1, 8, 1], embeddings=both, charge=None, multiplicity=None)
    return module, potential, expected


FORMS = ["positions", "field", "inputs"]


@pytest.mark.parametrize("form", FORMS)
def test_a_module_of_each_form_gives_its_energy(form):
    _, potential, expected = wrapped(form)
    assert energy(potential) == expected
    assert potential.level == "ML"


@pytest.mark.parametrize("form", FORMS)
def test_a_scripted_module_of_each_form_gives_its_energy(form):
    module, potential, expected = wrapped(form)
    settings = {"embeddings": potential.embeddings, "charge": None, "multiplicity": None}
    again = MLPotential(torch.jit.script(module), elements=[1, 8], **settings)
    assert energy(again) == pytest.approx(expected, rel=1e-15)  # the same operations, perhaps fused


@pytest.mark.parametrize("form", FORMS)
def test_a_model_survives_saving_and_loading(form, tmp_path):
    _, potential, expected = wrapped(form)
    path = tmp_path / "site.pt"
    potential.save(path)
    loaded = MLPotential.load(str(path), trust_code=True)
    assert energy(loaded) == expected
    for setting in ("elements", "atomic_numbers", "embeddings", "charge", "multiplicity", "conditions", "state"):
        assert getattr(loaded, setting) == getattr(potential, setting)
    assert [file.name for file in tmp_path.iterdir()] == ["site.pt"]  # no half-written file beside it


def test_a_loaded_model_can_be_saved_again(tmp_path):
    _, potential, expected = wrapped("inputs")
    potential.save(tmp_path / "one.pt")
    MLPotential.load(tmp_path / "one.pt", trust_code=True).save(tmp_path / "two.pt")
    assert energy(MLPotential.load(tmp_path / "two.pt", trust_code=True)) == expected


def test_the_parts_of_a_file_are_what_they_are_called(tmp_path):
    _, potential, expected = wrapped("field")
    potential.save(tmp_path / "site.pt")
    with zipfile.ZipFile(tmp_path / "site.pt") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    assert sorted(parts) == sorted([SETTINGS_FILE, MODULE_FILE, CHECKSUMS_FILE])
    module = torch.jit.load(io.BytesIO(parts[MODULE_FILE]))
    assert float(module(inputs())["energy"]) == expected
    settings = json.loads(parts[SETTINGS_FILE])
    assert settings["format_version"] == FORMAT_VERSION
    assert settings["units"] == "atomic units: bohr, hartree, e"
    assert settings["potential"]["elements"] == [1, 8]


@pytest.mark.parametrize("form", FORMS)
def test_a_potential_survives_pickling(form):
    _, potential, expected = wrapped(form)
    copy = pickle.loads(pickle.dumps(potential))
    assert energy(copy) == expected
    assert copy.embeddings == potential.embeddings
    assert copy.atomic_numbers == potential.atomic_numbers


def test_the_users_own_module_stays_trainable():
    module = SpringsInField()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    potential = MLPotential(module, elements=[1, 8], embeddings=["electrostatic"])
    assert module.training
    assert module.springs.training
    assert all(parameter.requires_grad for parameter in module.parameters())
    assert not any(parameter.requires_grad for parameter in potential.module.parameters())
    expected = energy(potential)
    with torch.no_grad():
        module.springs.strength.mul_(2.0)  # further training does not change the potential
    assert energy(potential) == expected
    assert before.keys() == module.state_dict().keys()


def test_a_scripted_module_of_the_user_stays_trainable():
    module = torch.jit.script(Contract())
    MLPotential(module, elements=[1, 8])
    assert module.training
    assert all(parameter.requires_grad for parameter in module.parameters())


def test_the_model_is_in_evaluation_mode():
    _, potential, _ = wrapped("positions")
    assert not potential.module.training


@pytest.mark.parametrize("embedding", ["mechanical", "electrostatic"])
def test_a_model_gets_charge_multiplicity_and_field_in_a_system(embedding):
    case = molecule_among_ions(periodic=False)
    potential = MLPotential(
        Contract(),
        elements=[1, 8],
        embeddings=["mechanical", "electrostatic"],
        charge=None,
        multiplicity=None,
    )
    region = Region("mol", [0, 1, 2], 0, 3)
    mixed = create_mixed_system(case.topology, case.system, Hamiltonian([Term(potential, region, embedding=embedding)]))
    found, forces = system_energy_and_forces(mixed.system, case.positions)
    higher = Region("mol", [0, 1, 2], 0, 4)
    mixed = create_mixed_system(case.topology, case.system, Hamiltonian([Term(potential, higher, embedding=embedding)]))
    other, _ = system_energy_and_forces(mixed.system, case.positions)
    # 0.01 hartree times the sum of atomic numbers for one more in multiplicity
    assert other - found == pytest.approx(0.1 * 2625.4996394798254, rel=1e-9)
    assert abs(forces[0:3]).max() > 0


# What is not a model.


def specification(numbers=(1, 8, 1), charge=0, multiplicity=1):
    return RegionSpecification("mol/ML", np.array(numbers), charge, multiplicity)


def test_a_region_that_fits_passes():
    MLPotential(Springs(), elements=[1, 8]).check(specification((8, 1, 1, 8)))
    MLPotential(Springs(), atomic_numbers=[1, 8, 1]).check(specification())
    anything = MLPotential(Springs(), elements=[1, 8], charge=None, multiplicity=None)
    anything.check(specification(charge=-3, multiplicity=5))


def test_an_element_that_the_model_does_not_know_is_refused():
    with pytest.raises(
        PotentialError,
        match="'mol/ML': the ML model does not know the elements with atomic numbers 17, 35; it was made for 1",
    ):
        MLPotential(Springs(), elements=[8, 1]).check(specification((35, 8, 17)))


@pytest.mark.parametrize("numbers", [(8, 1, 1), (1, 8), (1, 8, 1, 1)])
def test_atoms_in_another_order_are_refused(numbers):
    with pytest.raises(
        PotentialError,
        match=r"one molecule of 3 atoms in the order 1, 8, 1; the region has . atoms in the order",
    ):
        MLPotential(Springs(), atomic_numbers=[1, 8, 1]).check(specification(numbers))


def test_another_charge_is_refused():
    with pytest.raises(PotentialError, match="the ML model is for charge 0, the region has charge -1"):
        MLPotential(Springs(), elements=[1, 8]).check(specification(charge=-1))


def test_another_multiplicity_is_refused():
    with pytest.raises(PotentialError, match="the ML model is for multiplicity 1, the region has multiplicity 3"):
        MLPotential(Springs(), elements=[1, 8]).check(specification(multiplicity=3))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"state": 1}, r"has the electronic states 0, got 1; a model of several states is given conditions="),
        ({"state": 2, "conditions": [(0, 1, 0), (0, 1, 1)]}, "has the electronic states 0, 1, got 2"),
        ({"conditions": []}, "conditions is a list of different triples of integers .*, got"),
        ({"conditions": [(0, 1)]}, r"conditions is a list of different triples of integers .*, got \(0, 1\)"),
    ],
)
def test_states_are_those_that_the_model_has(arguments, message):
    with pytest.raises(PotentialError, match=message):
        MLPotential(Contract(), elements=[1, 8], **arguments)


@pytest.mark.parametrize("given", [{}, {"elements": [1], "atomic_numbers": [1]}])
def test_elements_or_one_molecule_has_to_be_given(given):
    with pytest.raises(PotentialError, match=r"give either elements=\[...\], .* or atomic_numbers="):
        MLPotential(Springs(), **given)


@pytest.mark.parametrize("elements", [[], [0, 1], [119]])
def test_elements_are_those_of_the_periodic_table(elements):
    with pytest.raises(PotentialError, match="elements: atomic numbers are 1 to 118|one atomic number or more"):
        MLPotential(Springs(), elements=elements)


@pytest.mark.parametrize(("embeddings", "named"), [(["electronic"], "electronic"), ([], "none")])
def test_embeddings_are_those_that_exist(embeddings, named):
    with pytest.raises(PotentialError, match=f"embeddings are among 'mechanical', 'electrostatic', got '?{named}"):
        MLPotential(Contract(), elements=[1], embeddings=embeddings)


@pytest.mark.parametrize("scripted", [False, True])
def test_a_module_of_positions_alone_feels_no_field(scripted):
    module = torch.jit.script(Springs()) if scripted else Springs()
    with pytest.raises(PotentialError, match="does not feel the surroundings: use embeddings="):
        MLPotential(module, elements=[1], embeddings=["electrostatic"])


def test_something_that_is_no_module_is_refused():
    with pytest.raises(PotentialError, match=r"wraps a torch.nn.Module, got function"):
        MLPotential(test_something_that_is_no_module_is_refused, elements=[1])


class OtherForm(torch.nn.Module):
    def forward(self, coordinates, box):
        return coordinates.sum() + box.sum()


@pytest.mark.parametrize("scripted", [False, True])
def test_a_forward_of_another_form_is_refused(scripted):
    module = torch.jit.script(OtherForm()) if scripted else OtherForm()
    with pytest.raises(PotentialError, match=r"this one takes \(coordinates, box\)"):
        MLPotential(module, elements=[1])


class NeedsPython(torch.nn.Module):
    def forward(self, positions):
        return torch.from_numpy(np.asarray(positions)).sum()


def test_a_module_that_needs_python_is_refused_with_what_to_use_instead():
    with pytest.raises(PotentialError, match=r"cannot be turned into TorchScript: [\s\S]* your own EvaluatedPotential"):
        MLPotential(NeedsPython(), elements=[1])


# Files with code.


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return (Path.write_text, (Path(self.marker), "code was run"))


class Overwriting(torch.nn.Module):
    """TorchScript that overwrites the first bytes of a file at each energy: no pickle, and code all the same."""

    def __init__(self, path):
        super().__init__()
        self.path = str(path)

    def forward(self, positions: torch.Tensor) -> torch.Tensor:
        content = torch.from_file(self.path, shared=True, size=1, dtype=torch.float64)
        content.fill_(0.0)
        return positions.sum() + content.sum()


def test_a_module_can_do_harm_and_is_not_loaded_without_being_asked_for(tmp_path):
    script, path = tmp_path / "script.py", tmp_path / "model.pt"
    script.write_text("print('precious')\n")
    MLPotential(Overwriting(script), elements=[1]).save(path)
    with pytest.raises(PotentialError, match=r"module of its author's own, which is code .* trust_code=True"):
        MLPotential.load(path)
    potential = MLPotential.load(path, trust_code=True)
    potential.module({"positions": POSITIONS})
    assert not script.read_bytes().startswith(b"print"), "the module does no harm, so that this test shows nothing"


@pytest.mark.parametrize("value", [1, "yes", None])
def test_trust_is_true_or_false(tmp_path, value):
    MLPotential(Springs(), elements=[1]).save(tmp_path / "model.pt")
    with pytest.raises(PotentialError, match="trust_code is True or False, got"):
        MLPotential.load(tmp_path / "model.pt", trust_code=value)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old format"])
@pytest.mark.parametrize("trusted", [True, False])
def test_a_pickle_is_refused_without_being_unpickled(tmp_path, zipped, trusted):
    path, marker = tmp_path / "model.pt", tmp_path / "marker"
    torch.save({"weights": Trap(marker)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(PotentialError, match="looks like a pickle of torch.save|is not a model file"):
        MLPotential.load(path, trust_code=trusted)
    assert not marker.exists()
    torch.load(path, weights_only=False)
    assert marker.exists(), "the trap does not work, so that this test shows nothing"


def test_a_pickle_in_the_place_of_weights_is_not_unpickled(tmp_path):
    path, marker = tmp_path / "model.pt", tmp_path / "marker"
    buffer = io.BytesIO()
    torch.save({"weights": Trap(marker)}, buffer)
    network = {"atomic_numbers": [8, 1, 1], "bonds": [], "settings": {"near_cutoff": 0.0}, "members": 1}
    network |= {"conditions": [[0, 1, 0]], "precision": "float32"}
    write_model_file(path, ModelFile({"network": network}, weights=buffer.getvalue()))
    with pytest.raises(PotentialError, match=r"has no network that this qmmlmm can read: .*Weights only load failed"):
        MLPotential.load(path)
    assert not marker.exists()


def test_torchscript_that_does_not_say_what_it_is_for_is_refused(tmp_path):
    path = tmp_path / "model.pt"
    torch.jit.save(torch.jit.script(Springs()), str(path))
    with pytest.raises(
        PotentialError, match=r"is TorchScript, which is code, without elements, .* wrap it: MLPotential\("
    ):
        MLPotential.load(path)


# Files that are not models.


def test_a_file_that_is_not_there_is_named_with_the_working_directory(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no model file .*nothing.pt'; the working directory is"):
        MLPotential.load(tmp_path / "nothing.pt")


def test_a_folder_is_no_model(tmp_path):
    with pytest.raises(FileNotFoundError, match="no model file"):
        MLPotential.load(tmp_path)


@pytest.mark.parametrize("path", [None, 5, b"model.pt", "", "a\0b"])
def test_what_is_no_path_is_refused(path):
    with pytest.raises(PotentialError, match="path is a path, got"):
        MLPotential.load(path)
    with pytest.raises(PotentialError, match="path is a path, got"):
        MLPotential(Springs(), elements=[1]).save(path)


@pytest.mark.parametrize("content", [b"", b"just text\n", b"\x80\x04N."])
def test_a_file_that_is_no_archive_is_refused(tmp_path, content):
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    with pytest.raises(PotentialError, match=r"model.pt' is not a model file, or is cut off; write model files with"):
        MLPotential.load(path)


def test_any_other_archive_is_refused(tmp_path):
    path = tmp_path / "model.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/readme.txt", "hello")
    with pytest.raises(PotentialError, match=r"is an archive, but not a model file: qmmlmm.json or checksums.sha256"):
        MLPotential.load(path)


@pytest.mark.parametrize("settings", [{}, {"potential": 5}, {"potential": {"elements": [1]}}])
def test_a_file_without_the_settings_of_a_potential_is_refused(tmp_path, settings):
    path = tmp_path / "model.pt"
    MLPotential(Springs(), elements=[1]).save(path)
    with zipfile.ZipFile(path) as archive:
        module = archive.read(MODULE_FILE)
    write_model_file(path, ModelFile(settings, module=module))
    with pytest.raises(PotentialError, match="has no settings of a potential, or not all of elements, "):
        MLPotential.load(path, trust_code=True)


def test_a_truncated_model_file_is_refused(tmp_path):
    path = tmp_path / "model.pt"
    MLPotential(Springs(), elements=[1]).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(PotentialError, match="is not a model file, or is cut off"):
        MLPotential.load(path)


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    potential = MLPotential(Springs(), elements=[1])
    with pytest.raises(PotentialError, match=r"the model file '.*no.model.pt' cannot be written: No such file"):
        potential.save(tmp_path / "no" / "model.pt")
    with pytest.raises(PotentialError, match=r"cannot be written: Is a directory|cannot be written"):
        potential.save(tmp_path)


# Wrong arguments.


def test_elements_are_numbers_or_symbols():
    potential = MLPotential(Springs(), elements=["C", 1, np.int64(8), torch.tensor(7)])
    assert potential.elements == {1, 6, 7, 8}
    assert MLPotential(Springs(), atomic_numbers=["O", "H", "H"]).atomic_numbers == (8, 1, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        *(({"elements": v}, "elements is a list of atomic numbers or symbols") for v in (5, "C", b"C", {6: 1}, True)),
        ({"elements": []}, "elements has one atomic number or more, got none"),
        *(({"elements": [v]}, "elements: atomic numbers are 1 to 118") for v in (0, 119, -1, 6.5, True, None, [6])),
        ({"elements": ["c"]}, "elements: 'c' is no symbol of an element.*Nearest names: C"),
        ({"elements": ["Carbon"]}, "elements: 'Carbon' is no symbol"),
        ({"elements": None, "atomic_numbers": [1.5]}, "atomic_numbers: atomic numbers are 1 to 118"),
        ({"elements": [6], "atomic_numbers": [6]}, "give either elements"),
        *(({"embeddings": v}, "embeddings is a list of 'mechanical'") for v in (None, 5, "mechanical", True)),
        *(({"embeddings": [v]}, "embeddings are among") for v in (None, 5, "electric", ["mechanical"])),
        ({"embeddings": []}, "embeddings are among .*, got none"),
        *(({"charge": v}, "charge is None .* or an integer from -1000") for v in (0.5, True, "0", [], math.nan, 10**9)),
        *(({"multiplicity": v}, "multiplicity is None .* from 1") for v in (0, -1, 1.5, True, "1", math.nan)),
        *(({"conditions": v}, "conditions is a list of different triples") for v in (5, "x", [], [5], [(0, 1)], True)),
        *(
            ({"conditions": [v]}, "conditions is a list of .* triples")
            for v in ((0, 1.0, 0), (0, "1", 0), (0, True, 0))
        ),
        ({"conditions": [(0, 1, 0), (0, 1, 0)]}, "conditions is a list of different triples"),
        ({"conditions": [(0, 0, 0)]}, "conditions: multiplicity"),
        ({"conditions": [(0, 1, -1)]}, "conditions: state is a whole number"),
        *(({"state": v}, "electronic states 0, got") for v in (1, -1, 0.0, True, "0", None, math.nan)),
        *(({"module": v}, r"wraps a torch\.nn\.Module") for v in (None, 5, Springs)),
    ],
)
def test_a_wrong_argument_is_refused(arguments, message):
    given = {"module": Springs(), "elements": [6], **arguments}
    with pytest.raises(PotentialError, match=message):
        MLPotential(given.pop("module"), **given)


class Constant(torch.nn.Module):
    def forward(self, positions: torch.Tensor) -> torch.Tensor:
        return torch.ones(1).sum()


class Detached(torch.nn.Module):
    def forward(self, positions: torch.Tensor) -> torch.Tensor:
        return positions.detach().sum()


class PerAtom(torch.nn.Module):
    def forward(self, positions: torch.Tensor) -> torch.Tensor:
        return positions.sum(1)


class Unnamed(torch.nn.Module):
    def forward(self, inputs: Dict[str, torch.Tensor]) -> Dict[str, torch.Tensor]:  # noqa: UP006
        return {"E": inputs["positions"].sum()}


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Constant(), "returns an energy that depends neither on positions nor"),
        (Detached(), "returns an energy that depends neither on positions nor"),
        (PerAtom(), r"returns an energy of shape \(3,\); it is one number"),
        (Unnamed(), 'returns no "energy"'),
    ],
)
def test_a_result_without_an_energy_or_forces_is_refused_for_its_region(module, message):
    potential = MLPotential(module, elements=["O", "H"])
    with pytest.raises(PotentialError, match=f"^term 'water/ML': the ML model {message}"):
        potential.check(RegionSpecification("water/ML", np.array([8, 1, 1]), 0, 1))
