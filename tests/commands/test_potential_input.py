"""Embedded potentials in input files: the key ``response`` of a level, in every kind of file."""

from __future__ import annotations

import json
import pickle
from importlib.util import find_spec
from typing import Dict  # noqa: UP035  (TorchScript reads it)
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor

from qmmlmm import EmbeddedPotential, Hamiltonian, MLPotential, Region, Term, XTBPotential, create_mixed_system
from qmmlmm.commands.correct import read_correction
from qmmlmm.commands.input_file import read_toml
from qmmlmm.commands.learn_input import read_loop
from qmmlmm.commands.main import main
from qmmlmm.commands.reaction_input import read_reaction
from qmmlmm.commands.run_input import read_run
from qmmlmm.errors import InputFileError
from qmmlmm.learning.loop import LearningLoop
from qmmlmm.ml import (
    FixedResponse,
    GeneralResponse,
    ModelCharges,
    ResponseModel,
    ResponseNetwork,
    ResponseSettings,
    SO3LRPotential,
    aimnet2_potential,
    save_network,
)
from tests.commands.toml_text import changed, toml_text
from tests.commands.waters import write_waters
from tests.contexts import system_energy_and_forces
from tests.quick_torch import quick_torch
from tests.toy_potentials import ELEMENTS, Springs

pytestmark = pytest.mark.filterwarnings(
    # OpenMM leaves the files that it reads to the garbage collector.
    "ignore::pytest.PytestUnraisableExceptionWarning",
    "ignore::ResourceWarning",
    "ignore:region 'water' has charge:qmmlmm.errors.QmmlmmWarning",
)

SAME_ENERGY, SAME_FORCE = 1e-9, 1e-9
"""kJ/mol and kJ/(mol nm): the same calculation once more."""
NUMBERS, BONDS = [8, 1, 1], [(0, 1), (0, 2)]
SMALL = ResponseSettings(features=8, layers=1, radial_functions=6, near_features=4, tensor_features=4)
WATER = {"select": "resid 0", "charge": 0}
LEVEL = {"model": "base.pt", "trust_code": True, "response": "water.json"}
RUN = {
    "system": {"pdb": "waters.pdb", "force_field": ["amber14/tip3p.xml"]},
    "region": {"water": WATER},
    "term": [LEVEL],
    "dynamics": {"length": 4, "seed": 7},
    "output": {"trajectory": 4, "energies": 2, "checkpoint": 4},
    "platform": {"name": "Reference"},
}
REACTION = {
    "system": {"pdb": "waters.pdb", "force_field": ["amber14/tip3p.xml"], "constraints": "none", "rigid_water": False},
    "region": {"water": WATER},
    "term": [LEVEL],
    "moving": {"max_steps": 3},
    "single_points": {"method": "gfn2-xtb", "response": "response.pt"},
    "platform": {"name": "Reference"},
}
LOOP = {
    "system": RUN["system"],
    "region": {"name": "water", **WATER},
    "qm": {"method": "hf", "basis": "sto-3g"},
    "platform": "Reference",
    "base": LEVEL,
}
LEG = {"system": {**RUN["system"], "flexible_constraints": True}, "region": LOOP["region"]}
CORRECT = {
    "leg": {"complex": LEG, "solvent": LEG},
    "level": [{"method": "force field"}, LEVEL],
    "switching": {"platform": "Reference"},
}


class Charged(torch.nn.Module):
    """Springs, and charges of water that follow its bonds."""

    def __init__(self) -> None:
        super().__init__()
        self.springs = Springs(0.01)

    def forward(self, inputs: Dict[str, Tensor]) -> Dict[str, Tensor]:  # noqa: UP006
        x = inputs["positions"]
        flow = 0.2 * torch.sqrt(((x[1:] - x[:1]) ** 2).sum(-1))
        return {"energy": self.springs(x), "charges": torch.cat([-flow.sum().reshape(1), flow])}


class FromAngstrom(torch.nn.Module):
    """The same with the interface of AIMNet2."""

    def __init__(self) -> None:
        super().__init__()
        self.charged = Charged()

    def forward(self, data: Dict[str, Tensor]) -> Dict[str, Tensor]:  # noqa: UP006
        found = self.charged({"positions": data["coord"][0].to(torch.float64)})
        return {"energy": found["energy"].reshape(1), "charges": found["charges"].unsqueeze(0)}


def fixed(numbers, bonds, charge=0, seed=4):
    empty = FixedResponse(numbers, bonds, charge)
    rng = np.random.default_rng(seed)
    distances, coefficients = 2.0 + 0.1 * rng.normal(size=empty.n_classes), 0.2 * rng.normal(size=empty.n_coefficients)
    return FixedResponse(numbers, bonds, charge, distances, coefficients)


def network(conditions=((0, 1, 0),), response_only=True):
    torch.manual_seed(3)
    return ResponseNetwork(NUMBERS, BONDS, SMALL, list(conditions), response_only=response_only).eval()


def write_files(folder):
    """Write two waters, bases and responses, right ones and wrong ones."""
    write_waters(folder / "waters.pdb", box=2.0)
    fixed(NUMBERS, BONDS).save(folder / "water.json")
    fixed([6, 1, 1, 1, 1], [(0, k) for k in range(1, 5)]).save(folder / "methane.json")
    fixed(NUMBERS, BONDS, charge=-1).save(folder / "anion.json")
    ResponseModel(network()).save(folder / "response.pt")
    ResponseModel(network([(-1, 1, 0)])).save(folder / "anion.pt")
    save_network(network(response_only=False), folder / "network.pt")
    MLPotential(Springs(0.01), elements=ELEMENTS, charge=None, multiplicity=None).save(folder / "base.pt")
    MLPotential(Charged(), elements=ELEMENTS, charge=None, multiplicity=None).save(folder / "charged.pt")
    torch.jit.save(torch.jit.script(FromAngstrom()), folder / "aimnet2.jpt")
    (folder / "half.pt").write_bytes((folder / "response.pt").read_bytes()[:200])
    (folder / "text").write_text("nonsense")
    later = json.loads((folder / "water.json").read_text()) | {"format": 99}
    (folder / "later.json").write_text(json.dumps(later))


@pytest.fixture(scope="module", autouse=True)
def _quick():
    with quick_torch():
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("responses")
    write_files(folder)
    return folder


def written(folder, content, name="run.toml"):
    path = folder / name
    path.write_text(toml_text(content))
    return path


def with_level(level):
    return changed(RUN, ("term",), [level])


@pytest.mark.parametrize(
    ("level", "potential"),
    [
        (LEVEL, lambda folder: (load(folder, "base.pt"), FixedResponse.load(folder / "water.json"))),
        (
            {"method": "gfn2-xtb", "accuracy": 0.001, "response": "response.pt"},
            lambda folder: (XTBPotential("gfn2-xtb", accuracy=0.001), ResponseModel.load(folder / "response.pt")),
        ),
        ({**LEVEL, "response": "general"}, lambda folder: (load(folder, "base.pt"), GeneralResponse.load())),
        (
            {"model": "charged.pt", "trust_code": True, "response": "model charges"},
            lambda folder: (load(folder, "charged.pt"), ModelCharges()),
        ),
        (
            {"pretrained": "aimnet2", "file": "aimnet2.jpt", "trust_code": True, "response": "model charges"},
            lambda folder: (aimnet2_potential(folder / "aimnet2.jpt", trust_code=True), ModelCharges()),
        ),
        pytest.param(
            {"pretrained": "so3lr", "trust_code": True, "response": "model charges"},
            lambda folder: (SO3LRPotential(trust_code=True), ModelCharges()),
            marks=pytest.mark.skipif(find_spec("so3krates_torch") is None, reason="so3krates-torch is not installed"),
        ),
    ],
    ids=["fixed", "trained", "general", "charges", "aimnet2", "so3lr"],
)
def test_energy_and_forces_are_those_of_the_object(folder, level, potential):
    given = read_run(written(folder, with_level(level)))
    term = Term(EmbeddedPotential(*potential(folder)), Region("water", [0, 1, 2]), embedding="electrostatic")
    mixed = create_mixed_system(given.start.topology, given.start.system, Hamiltonian([term]))
    positions = given.start.positions
    energy, forces = system_energy_and_forces(given.system.system, positions)
    wanted = system_energy_and_forces(mixed.system, positions)
    assert abs(energy - wanted[0]) < SAME_ENERGY
    assert np.abs(forces - wanted[1]).max() < SAME_FORCE
    alone = {key: value for key, value in level.items() if key != "response"} | {"embedding": "mechanical"}
    without = read_run(written(folder, with_level(alone))).system.system
    assert abs(energy - system_energy_and_forces(without, positions)[0]) > 0.01


def load(folder, name):
    return MLPotential.load(folder / name, trust_code=True)


def test_a_correction_of_a_term_may_have_a_response(folder):
    level = {"method": "gfn1-xtb", "correct": LEVEL}
    terms = read_run(written(folder, with_level(level))).system.terms
    assert [type(mixed.term.potential) for mixed in terms.values()] == [XTBPotential, EmbeddedPotential, XTBPotential]


def test_a_run_shows_the_response_and_keeps_it_in_its_record(tmp_path, capsys):
    write_files(tmp_path)
    path = written(tmp_path, RUN)
    mark = FixedResponse.load(tmp_path / "water.json").fingerprint()
    assert main(["run", str(path), "--check"]) == 0
    assert f"response: FixedResponse ({mark}), electrostatic" in capsys.readouterr().out
    assert main(["run", str(path)]) == 0
    record = json.loads(next(tmp_path.glob("run/**/run.json")).read_text())
    assert f"response='{mark}'" in record["mixed_system"]["terms"][0]["potential"]
    fixed(NUMBERS, BONDS, seed=5).save(tmp_path / "water.json")
    path.write_text(toml_text(changed(RUN, ("dynamics", "length"), 8)))
    assert main(["run", str(path)]) == 1
    assert "mixed_system" in capsys.readouterr().err


def cases():
    """Yield a level and a part of the message."""
    yield from (({**LEVEL, "response": v}, r"\[term\] response is a text in quotes") for v in (5, True, [], {}))
    yield {**LEVEL, "response": "none.json"}, r"\[term\] response: there is no file .*none.json.*GeneralResponse saved"
    yield {**LEVEL, "response": "model-charges"}, r"\[term\] response: there is no file .*Nearest names: model charges"
    yield {**LEVEL, "response": "text"}, r"\[term\] response: .*text' is no file of a FixedResponse.* saved"
    yield {**LEVEL, "response": "waters.pdb"}, r"\[term\] response: .* is no file of a FixedResponse"
    yield {**LEVEL, "response": "later.json"}, r"\[term\] response: .* has the format 99, this qmmlmm reads 1"
    yield {**LEVEL, "response": "half.pt"}, r"\[term\] response: .*half.pt' is not a model file, or is cut off"
    yield {**LEVEL, "response": "base.pt"}, r"\[term\] response: .*base.pt' has a module of its author's own"
    yield {**LEVEL, "response": "network.pt"}, r"\[term\] response: .*network.pt' is a potential with an energy in a"
    yield {**LEVEL, "respnse": "x"}, r"\[term\] has the unknown key 'respnse'.* Nearest names: response"
    yield {**LEVEL, "embedding": "mechanical"}, r"\[term\] response: with the embedding \"mechanical\" there is no"
    yield {"method": "force field", "response": "water.json"}, r"\[term\] response: the force field has charges of its"
    yield {"response": "water.json"}, r"\[term\] has one of method, model, pretrained, got none"
    yield {"method": "gfn2-xtb", "response": "model charges"}, r"\[term\] response: base: ModelCharges\(\) uses"
    yield {"model": "network.pt", "response": "model charges"}, r"\[term\] response: base: ModelCharges\(\) uses"
    yield {**LEVEL, "response": "model charges"}, "term 'water/ML': the model returns no \"charges\""
    yield {"model": "base.pt", "response": "water.json"}, r"\[term\] .*trust_code=True"
    yield {**LEVEL, "response": "methane.json"}, "term 'water/ML': the response is for the atoms 6, 1, 1, 1, 1 and"
    yield {**LEVEL, "response": "anion.json"}, "term 'water/ML': the response is for .* charge -1; the region has .* 0"
    yield {**LEVEL, "response": "anion.pt"}, r"term 'water/ML': the response was not trained for .* \(0, 1, 0\)"
    yield {"pretrained": "so3lr", "response": "model charges"}, r"\[term\] .*SO3LR.* are a pickle.*trust_code = true"
    yield {"pretrained": "so3lr", "trust_code": 1}, r"\[term\] trust_code is True or False, got 1"
    yield (
        {"pretrained": "so3lr", "trust_code": True, "file": "x", "long_range": True},
        "'so3lr' has no file, long_range;",
    )
    yield (
        {"pretrained": "mace", "file": "base.pt", "trust_code": True},
        "trust_code is for 'so3lr' and for 'aimnet2' wi",
    )
    aimnet2 = {"pretrained": "aimnet2", "file": "aimnet2.jpt", "response": "model charges"}
    yield aimnet2, r"\[term\] .*aimnet2\.jpt' is code of its author's own.*trust_code=True"
    yield {**aimnet2, "trust_code": True, "model_charge": 1}, "'aimnet2' has no model_charge; leave it out"
    yield (
        {**aimnet2, "trust_code": True, "file": "none.jpt"},
        r"\[term\] .*names the file .*none\.jpt', and there is none",
    )
    yield {**aimnet2, "trust_code": True, "file": "text"}, r"\[term\] .*text' is neither TorchScript nor a program"
    two = {"method": "gfn2-xtb", "correct": {**LEVEL, "response": "none.pt"}}
    yield two, r"\[term.correct\] response: there is no file"


CASES = list(cases())


@pytest.mark.parametrize(("level", "message"), CASES, ids=[str(k) for k in range(len(CASES))])
def test_a_wrong_response_is_named(folder, level, message):
    with pytest.raises(InputFileError, match=message):
        read_run(written(folder, with_level(level)))


def test_a_reaction_takes_responses_in_its_term_and_its_single_points(folder):
    given = read_reaction(written(folder, REACTION))
    (mixed,) = given.mixed.terms.values()
    assert mixed.term.potential.response.fingerprint() == FixedResponse.load(folder / "water.json").fingerprint()
    assert isinstance(given.upper.potential.base, XTBPotential)
    assert isinstance(given.upper.potential.response, ResponseModel)
    with pytest.raises(InputFileError, match=r"\[single_points\] term 'water/ML': the response was not trained"):
        read_reaction(written(folder, changed(REACTION, ("single_points", "response"), "anion.pt")))
    alone = [{"method": "gfn2-xtb", "embedding": "mechanical"}]
    with pytest.raises(InputFileError, match=r"\[single_points\] response: with the embedding \"mechanical\""):
        read_reaction(written(folder, changed(REACTION, ("term",), alone)))


def test_what_the_workers_of_a_reaction_get_is_the_same_term(folder):
    mixed = read_reaction(written(folder, REACTION)).mixed
    again = pickle.loads(pickle.dumps(mixed))
    assert again.describe() == mixed.describe()


def test_the_base_of_a_loop_may_have_a_response(folder):
    with mock.patch("qmmlmm.commands.learn_input.LearningLoop", wraps=LearningLoop) as made:
        read_loop(written(folder, LOOP))
    base = made.call_args.kwargs["base"]
    assert base.response.fingerprint() == FixedResponse.load(folder / "water.json").fingerprint()
    assert isinstance(base.base, MLPotential)
    charges = {"pretrained": "aimnet2", "file": "aimnet2.jpt", "trust_code": True, "response": "model charges"}
    with mock.patch("qmmlmm.commands.learn_input.LearningLoop", wraps=LearningLoop) as made:
        read_loop(written(folder, changed(LOOP, ("base",), charges)))
    assert made.call_args.kwargs["base"].response == ModelCharges()
    for place, value, message in (
        (("base",), {"pretrained": "so3lr"}, r"\[base\] .*SO3LR.* are a pickle"),
        (("base", "response"), "none.json", r"\[base\] response: there is no file"),
        (("base", "response"), "methane.json", "the response is for the atoms"),
        (("base", "rsponse"), "x", r"\[base\] has the unknown key 'rsponse'.* Nearest names: response"),
        (("embedding",), "mechanical", r"\[base\] response: with the embedding \"mechanical\""),
        (("base",), {"method": "gfn2-xtb", "response": "model charges"}, r"\[base\] response: base: ModelCharges"),
    ):
        with pytest.raises(InputFileError, match=message):
            read_loop(written(folder, changed(LOOP, place, value)))


def test_a_level_of_a_correction_may_have_a_response(folder):
    path = written(folder, {**CORRECT, "directory": "correction"})
    stage = read_correction(read_toml(path, CORRECT_KEYS), path).stages[0]
    assert stage.name == "FF-ML"
    path = written(folder, {**CORRECT, "embedding": "mechanical"})
    with pytest.raises(InputFileError, match=r"\[level 2\] response: with the embedding \"mechanical\""):
        read_correction(read_toml(path, CORRECT_KEYS), path)


CORRECT_KEYS = ("directory", "leg", "level", "switching", "embedding")
