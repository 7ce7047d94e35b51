"""Embed a potential that knows a molecule in a vacuum only: by a response from ten labels, and by one from none.

Here GFN2-xTB without surroundings is the base; a pretrained network of openmm-ml is used in the same way. Labels are
B3LYP/6-31G* of acetone in the field of water, from the benchmarks. A linear fit finds charges that follow the geometry,
dipoles and polarisabilities of the atoms. The response for many molecules that comes with qmmlmm has seen no label of
acetone. Then there are dynamics with each of them.
"""

import sys
from pathlib import Path

import openmm
from openmm import app, unit

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from qmmlmm import EmbeddedPotential, Hamiltonian, Region, Term, XTBPotential, create_mixed_system
from qmmlmm.learning import fit_response, read_frames
from qmmlmm.ml import GeneralResponse
from systems.acetone_water import build

labels = int(sys.argv[1]) if len(sys.argv) > 1 else 10
frames = read_frames(ROOT / "tests" / "benchmarks" / "data" / "acetone_water.xyz.gz")[:: 450 // labels][:labels]
response = fit_response(frames)
response.save("acetone_response.json")
print(f"{response.n_coefficients} coefficients from {labels} labels")

structure, acetone = build(), Region("acetone", range(10))
xtb = XTBPotential("gfn2-xtb")
levels = {
    "GFN2-xTB in the field": xtb,
    "response from ten labels": EmbeddedPotential(xtb, response),
    "response from no label": EmbeddedPotential(xtb, GeneralResponse.load()),
}
for name, potential in levels.items():
    term = Term(potential, acetone, embedding="electrostatic", name="acetone/level")
    mixed = create_mixed_system(structure.topology, structure.system, Hamiltonian([term]))
    integrator = openmm.LangevinMiddleIntegrator(300 * unit.kelvin, 5 / unit.picosecond, 0.5 * unit.femtosecond)
    simulation = app.Simulation(structure.topology, mixed.system, integrator, openmm.Platform.getPlatform("CPU"))
    simulation.context.setPositions(structure.positions)
    energy = mixed.term_energies(simulation.context)["acetone/level"].value_in_unit(unit.kilojoule_per_mole)
    print(f"{name:30s} {energy:14.2f} kJ/mol")
    simulation.step(10)
