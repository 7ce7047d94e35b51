"""A serialised System whose term cannot be read here: OpenMM crashes if an exception leaves unpickling."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import openmm
import pytest

from qmmlmm import Hamiltonian, MLPotential, Region, Term, create_mixed_system
from tests.toy_potentials import Springs
from tests.toy_systems import molecule_among_ions

ROOT = Path(__file__).parents[2]

SCRIPT = """
import sys
import openmm
import qmmlmm.embedding.torch_term, qmmlmm.mm.python_force
{fault}
text = open("system.xml").read()
system = openmm.XmlSerializer.deserialize(text)
assert openmm.XmlSerializer.serialize(system) == text, "the term was not written as it was read"
context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatform("Reference"))
context.setPositions([openmm.Vec3(0.3 * k, 0.1 * k * k, 0.0) for k in range(system.getNumParticles())])
try:
    context.getState(energy=True)
except openmm.OpenMMException as error:
    print(error)
"""
FAULTS = {
    "a function that another version does not have": "del qmmlmm.embedding.torch_term._restore_term",
    "an archive that torch refuses": (
        "def refuse(*arguments, **settings): raise RuntimeError('storage offset 1 is out of bounds')\n"
        "qmmlmm.embedding.torch_term.torch.jit.load = refuse"
    ),
    "a package that is not installed": "sys.modules['qmmlmm.coupling.layout'] = None",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_term_that_cannot_be_read_says_so_at_its_first_evaluation(tmp_path, fault):
    case = molecule_among_ions(True)
    potential = MLPotential(Springs(), elements=[1, 8])
    hamiltonian = Hamiltonian([Term(potential, Region("mol", [0, 1, 2]), embedding="mechanical")])
    mixed = create_mixed_system(case.topology, case.system, hamiltonian, ml_backend="pythonforce")
    (tmp_path / "system.xml").write_text(openmm.XmlSerializer.serialize(mixed.system))
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(fault=FAULTS[fault])],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "a term of this serialised System cannot be read here: " in done.stdout
    assert "install the packages and versions with which it was written" in done.stdout
