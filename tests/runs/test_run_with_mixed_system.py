"""A run directory with a real mixed System: started, interrupted in a term, and resumed by a new process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys
import numpy as np, openmm, torch
from openmm import app
from qmmlmm import Hamiltonian, MLPotential, OpenMMPotential, Region, Term, create_mixed_system
from qmmlmm.coupling.potential import Evaluator
from qmmlmm.runs.run_directory import RunDirectory
from systems.alanine_dipeptide import build

folder, interrupt = sys.argv[1], int(sys.argv[2])
structure = build(vacuum=True, constraints=None)
peptide, methyl = Region("peptide", range(22)), Region("methyl", [10, 11, 12, 13])


class Springs(torch.nn.Module):
    def forward(self, positions: torch.Tensor, potential: torch.Tensor, field: torch.Tensor) -> torch.Tensor:
        distances = torch.cdist(positions, positions) + torch.eye(positions.shape[0], dtype=torch.float64)
        return 0.0005 * ((distances - 4.0) ** 2).sum() + 0.01 * potential[0]


class Interrupted(OpenMMPotential):
    def create_evaluator(self, specification):
        return Counting(super().create_evaluator(specification))


class Counting(Evaluator):
    def __init__(self, evaluator):
        self.evaluator, self.calls = evaluator, 0

    def evaluate(self, geometry, field):
        self.calls += 1
        if self.calls == interrupt:
            raise KeyboardInterrupt
        return self.evaluator.evaluate(geometry, field)


inner = openmm.System()
bonds = openmm.HarmonicBondForce()
for k in range(5):
    inner.addParticle(12.0)
    for j in range(k):
        bonds.addBond(j, k, 0.15, 1e4)
inner.addForce(bonds)
ml = MLPotential(Springs(), elements=[1, 6, 7, 8], embeddings=["electrostatic", "mechanical"])
hamiltonian = Hamiltonian([
    Term(ml, peptide, embedding="electrostatic"),
    Term(Interrupted(inner), methyl, embedding="mechanical"),
    Term(ml, methyl, embedding="mechanical", coefficient=-1.0),
])
mixed = create_mixed_system(structure.topology, structure.system, hamiltonian)
simulation = app.Simulation(
    mixed.topology, mixed.system, openmm.VerletIntegrator(0.0002), openmm.Platform.getPlatform("Reference")
)
resume = RunDirectory.holds_run(folder)
with RunDirectory(folder, mixed, resume=resume) as run:
    done = 0
    if resume:
        done = run.resume(simulation)
    else:
        simulation.context.setPositions(structure.positions)
    run.attach(simulation, trajectory_interval=2, energy_interval=1, checkpoint_interval=1, total_steps=8)
    run.run(simulation, 8 - done)
"""


def run_script(folder: Path, interrupt: int) -> subprocess.CompletedProcess:
    script = folder.parent / "script.py"  # TorchScript reads the source
    script.write_text(SCRIPT)
    root = Path(__file__).resolve().parents[2]
    return subprocess.run(
        [sys.executable, str(script), str(folder), str(interrupt)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
        timeout=300,
    )


def test_a_run_that_was_interrupted_in_a_term_goes_on_in_a_new_process_as_if_nothing_had_happened(tmp_path):
    interrupted = run_script(tmp_path / "interrupted", 5)
    assert "KeyboardInterrupt" in interrupted.stderr
    assert "OpenMMException" not in interrupted.stderr.splitlines()[-2]
    resumed = run_script(tmp_path / "interrupted", 0)
    assert resumed.returncode == 0, resumed.stderr
    whole = run_script(tmp_path / "whole", 0)
    assert whole.returncode == 0, whole.stderr
    first, second = ((tmp_path / name / "energies.csv").read_text() for name in ("interrupted", "whole"))
    assert first.count("\n") == 9
    rows = [[[float(x) for x in line.split(",")] for line in text.splitlines()[1:]] for text in (first, second)]
    # The checkpoint is exact on Reference; a TorchScript module may be optimised after some calls.
    for a, b in zip(*rows, strict=True):
        assert a == pytest.approx(b, abs=1e-6)
