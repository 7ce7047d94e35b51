"""Modules of a user's own from files, and programs of torch.export."""

from __future__ import annotations

import gc
import pickle
from typing import Dict, List  # noqa: UP035  (TorchScript reads them)

import numpy as np
import pytest
import torch
from torch import Tensor

from qmmlmm import Hamiltonian, MLPotential, Region, Term, check_potential, create_mixed_system
from qmmlmm.errors import HamiltonianError, PotentialError
from qmmlmm.ml.model_file import MODULE_FILE, ModelFile, write_model_file
from qmmlmm.mm.model_exchange import exchange_model
from tests.contexts import system_energy_and_forces
from tests.toy_potentials import Springs, SpringsInField
from tests.toy_systems import molecule_among_ions

SAME_NUMBERS = 1e-12  # relative; the same operations by another caller
BOTH = ["mechanical", "electrostatic"]


class FromInputs(torch.nn.Module):
    """Takes a dictionary, and has two members."""

    def __init__(self) -> None:
        super().__init__()
        self.springs = SpringsInField()

    def forward(self, inputs: Dict[str, Tensor]) -> Dict[str, Tensor]:  # noqa: UP006
        energy = self.springs(inputs["positions"], inputs["potential"], inputs["field"]) + 0.1 * inputs["charge"]
        return {"energy": energy, "member_energies": torch.stack([energy, 1.1 * energy])}


POSITIONS = torch.tensor([[0.0, 0.1, 0.2], [1.5, 0.9, 0.0], [2.8, -0.2, 0.4]], dtype=torch.float64)
AROUND = (torch.tensor([0.01, -0.02, 0.03], dtype=torch.float64), 0.01 * POSITIONS)
MODULES = {"positions": Springs, "field": SpringsInField, "inputs": FromInputs}


def exported(form, free=True):
    module = MODULES[form]().eval()
    given = {"positions": (POSITIONS,), "field": (POSITIONS, *AROUND)}.get(form)
    n = torch.export.Dim("n", min=2)
    shapes = tuple({0: n} for _ in given) if given is not None and free else None
    if given is None:
        named = dict(zip(("positions", "potential", "field"), (POSITIONS, *AROUND), strict=True))
        given = ({**named, "charge": torch.tensor(0.0, dtype=torch.float64)},)
    return module, torch.export.export(module, given, dynamic_shapes=shapes)


def potential_of(module, form):
    embeddings = ["mechanical"] if form == "positions" else BOTH
    return MLPotential(module, elements=[1, 8], embeddings=embeddings, charge=None, multiplicity=None)


def in_system(potential, embedding, **options):
    case = molecule_among_ions(True)
    hamiltonian = Hamiltonian([Term(potential, Region("mol", [0, 1, 2]), embedding=embedding)])
    mixed = create_mixed_system(case.topology, case.system, hamiltonian, **options)
    return mixed, system_energy_and_forces(mixed.system, case.positions)


@pytest.mark.parametrize(
    ("form", "embedding"),
    [
        ("field", "electrostatic"),
        pytest.param("positions", "mechanical", marks=pytest.mark.slow),
        pytest.param("field", "mechanical", marks=pytest.mark.slow),
        pytest.param("inputs", "electrostatic", marks=pytest.mark.slow),
    ],
)
def test_an_exported_program_has_the_forces_of_its_module_and_runs_in_python(form, embedding):
    module, program = exported(form)
    mixed, found = in_system(potential_of(program, form), embedding)
    _, expected = in_system(potential_of(module, form), embedding, ml_backend="pythonforce")
    assert mixed.describe()["terms"][0]["backend"] == "PythonForce"
    assert found[0] == pytest.approx(expected[0], rel=SAME_NUMBERS)
    np.testing.assert_allclose(found[1], expected[1], rtol=0, atol=SAME_NUMBERS * np.abs(expected[1]).max())


@pytest.mark.slow
def test_an_exported_program_obeys_the_contract_of_a_potential():
    _, program = exported("field")
    water = [[0.0, 0.0, 0.0], [0.096, 0.0, 0.0], [-0.024, 0.093, 0.0]]
    potential = MLPotential(program, atomic_numbers=[8, 1, 1], embeddings=BOTH, charge=None, multiplicity=None)
    check_potential(potential, [8, 1, 1], water)


@pytest.mark.parametrize(
    "form", ["field", *(pytest.param(name, marks=pytest.mark.slow) for name in ("positions", "inputs"))]
)
def test_files_of_programs_are_read_with_trust(tmp_path, form):
    _, program = exported(form)
    potential = potential_of(program, form)
    torch.export.save(program, tmp_path / "raw.pt2")
    potential.save(tmp_path / "model.pt")
    embeddings = sorted(potential.embeddings)
    raw = MLPotential(
        tmp_path / "raw.pt2", elements=[1, 8], embeddings=embeddings, charge=None, multiplicity=None, trust_code=True
    )
    for other in (
        raw,
        MLPotential.load(tmp_path / "model.pt", trust_code=True),
        pickle.loads(pickle.dumps(potential)),
    ):
        assert other.runs_in_python
        assert other.fingerprint() == potential.fingerprint()
        assert other.embeddings == potential.embeddings
    with pytest.raises(PotentialError, match=r"module of its author's own, which is code .* trust_code=True"):
        MLPotential.load(tmp_path / "model.pt")


def test_another_program_has_another_fingerprint():
    module, program = exported("positions")
    stiffer = torch.export.export(Springs(0.2).eval(), (POSITIONS,))
    assert potential_of(program, "positions").fingerprint() != potential_of(stiffer, "positions").fingerprint()


def test_a_file_of_torchscript_is_read_with_trust(tmp_path):
    path = tmp_path / "springs.pt"
    torch.jit.script(Springs().eval()).save(str(path))
    potential = MLPotential(path, elements=[1, 8], trust_code=True)
    assert potential.fingerprint() == MLPotential(str(path), elements=[1, 8], trust_code=True).fingerprint()
    assert not potential.runs_in_python


class OpenedError(Exception):
    """A reader of code was called."""


@pytest.mark.parametrize("kind", ["pt", "pt2"])
def test_no_code_is_read_without_trust(tmp_path, kind, monkeypatch):
    path = tmp_path / f"model.{kind}"
    module, program = exported("positions")
    if kind == "pt":
        torch.jit.script(module).save(str(path))
    else:
        torch.export.save(program, path)

    def opened(*arguments, **options):
        raise OpenedError

    monkeypatch.setattr(torch.jit, "load", opened)
    monkeypatch.setattr(torch.export, "load", opened)
    with pytest.raises(PotentialError, match=r"code of its author's own, which runs .* trust_code=True"):
        MLPotential(path, elements=[1, 8])
    with pytest.raises(PotentialError, match=r"which is code, without elements.* MLPotential\(path, .*trust_code=True"):
        MLPotential.load(path, trust_code=True)


def test_files_that_are_no_module_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no module"):
        MLPotential(tmp_path / "none.pt2", elements=[1], trust_code=True)
    (tmp_path / "text.pt2").write_text("text")
    with pytest.raises(PotentialError, match=r"neither TorchScript nor a program of torch\.export"):
        MLPotential(tmp_path / "text.pt2", elements=[1], trust_code=True)
    write_model_file(tmp_path / "model.pt", ModelFile({}, module=b"something"))
    with pytest.raises(PotentialError, match=r"is a model file; read it with MLPotential\.load"):
        MLPotential(tmp_path / "model.pt", elements=[1], trust_code=True)
    with pytest.raises(PotentialError, match=r"cannot be read by torch"):
        MLPotential.load(tmp_path / "model.pt", trust_code=True)
    assert MODULE_FILE == "module.pt"


class TwoArguments(torch.nn.Module):
    def forward(self, positions, charges):
        return (positions.sum() * charges).sum()


def test_a_program_with_other_arguments_is_refused():
    program = torch.export.export(TwoArguments(), (POSITIONS, AROUND[0]))
    with pytest.raises(PotentialError, match=r"an exported ML module takes .* this one takes \(positions, charges\)"):
        MLPotential(program, elements=[1])
    _, program = exported("positions")
    with pytest.raises(PotentialError, match="does not feel the surroundings"):
        MLPotential(program, elements=[1], embeddings=["electrostatic"])


def test_a_program_does_not_run_through_torchforce():
    _, program = exported("positions")
    with pytest.raises(HamiltonianError, match="cannot run through TorchForce"):
        in_system(potential_of(program, "positions"), "mechanical", ml_backend="torchforce")


@pytest.mark.slow
def test_a_program_replaces_the_model_of_a_term_in_python():
    module, program = exported("positions")
    mixed, first = in_system(potential_of(Springs(0.3), "positions"), "mechanical", ml_backend="pythonforce")
    exchange_model(mixed, "mol/ML", potential_of(program, "positions"))
    case = molecule_among_ions(True)
    found = system_energy_and_forces(mixed.system, case.positions)
    _, expected = in_system(potential_of(module, "positions"), "mechanical", ml_backend="pythonforce")
    assert found[0] == pytest.approx(expected[0], rel=SAME_NUMBERS)
    assert found[0] != first[0]


def test_the_module_of_a_program_works_without_its_potential():
    module, program = exported("positions")
    scripted = potential_of(program, "positions").module
    gc.collect()
    assert float(scripted({"positions": POSITIONS})["energy"]) == pytest.approx(float(module(POSITIONS)), rel=1e-12)


class Pieces(torch.nn.Module):
    """Springs whose constants are plain attributes, some of them in a module inside."""

    def __init__(self, stiffness: float = 0.1, factors: List[float] = [1.0, 2.0], inner: bool = False) -> None:  # noqa: B006, UP006
        super().__init__()
        self.stiffness, self.factors = stiffness, factors
        self.inner = Square() if inner else Absolute()

    def forward(self, positions: Tensor) -> Tensor:
        return self.stiffness * self.factors[1] * self.inner(positions)


class Square(torch.nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x * x).sum()


class Absolute(torch.nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.abs().sum()


def test_the_fingerprint_follows_plain_attributes_and_the_code_of_modules_inside(tmp_path):
    def potential(*arguments):
        return MLPotential(Pieces(*arguments), elements=[1, 8])

    first = potential().fingerprint()
    others = [potential(*given).fingerprint() for given in ((0.2,), (0.1, [1.0, 3.0]), (0.1, [1.0, 2.0], True))]
    assert len({first, *others}) == 4
    assert potential().fingerprint() == first
    potential().save(tmp_path / "model.pt")
    assert MLPotential.load(tmp_path / "model.pt", trust_code=True).fingerprint() == first
