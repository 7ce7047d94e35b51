"""Surface hopping of the methaniminium cation, SA-2-CASSCF(2,2): total energy of a trajectory and across hops.

    python tests/benchmarks/surface_hopping_casscf.py [--basis sto-3g] [--fs 100] [--step 0.5] [--seed 1]
        [--output FILE.csv]

Starts on S1 from the Wigner distribution of S0 (Hartree-Fock, 0 K); fewest switches by local diabatisation. Prints
the drift of the total energy, its largest change in a step, and the changes at hops; writes a row for every step.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import openmm
from openmm import app, unit

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from qmmlmm import Hamiltonian, MixedSystem, PySCFPotential, Region, Term, create_mixed_system
from qmmlmm.dynamics import SurfaceHopping, TermSurfaces, VelocityVerletIntegrator
from qmmlmm.dynamics.normal_modes import normal_modes
from qmmlmm.qm import CASSCF
from qmmlmm.units import HARTREE_IN_EV, HARTREE_IN_KJ_PER_MOL

EV = HARTREE_IN_EV / HARTREE_IN_KJ_PER_MOL
CATION = (  # angstrom
    ("C", 0.0, 0.0, 0.63),
    ("N", 0.0, 0.0, -0.65),
    ("H", 0.0, 0.94, 1.17),
    ("H", 0.0, -0.94, 1.17),
    ("H", 0.0, 0.86, -1.19),
    ("H", 0.0, -0.86, -1.19),
)
N_ATOMS = len(CATION)


def cation(potential: PySCFPotential) -> tuple[app.Simulation, MixedSystem]:
    """Return a Simulation of the molecule alone."""
    topology, system = app.Topology(), openmm.System()
    residue = topology.addResidue("MIM", topology.addChain())
    force = openmm.NonbondedForce()
    for symbol, *_ in CATION:
        element = app.Element.getBySymbol(symbol)
        topology.addAtom(symbol, element, residue)
        system.addParticle(element.mass)
        force.addParticle(1.0 / N_ATOMS, 0.3, 0.0)
    system.addForce(force)
    region = Region("cation", range(N_ATOMS), charge=1, multiplicity=1)
    mixed = create_mixed_system(topology, system, Hamiltonian([Term(potential, region, embedding="mechanical")]))
    platform = openmm.Platform.getPlatform("Reference")
    simulation = app.Simulation(topology, mixed.system, VelocityVerletIntegrator(0.0005), platform)
    simulation.context.setPositions(np.array([atom[1:] for atom in CATION]) * 0.1)
    return simulation, mixed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--basis", default="sto-3g")
    parser.add_argument("--fs", type=float, default=100.0)
    parser.add_argument("--step", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", default="surface_hopping.csv")
    arguments = parser.parse_args()
    ground, _ = cation(PySCFPotential("hf", arguments.basis))
    ground.minimizeEnergy(tolerance=2.0)
    modes = normal_modes(ground.context, range(N_ATOMS))
    print("wave numbers, 1/cm:", np.round(modes.wave_numbers).astype(int).tolist(), flush=True)
    positions, velocities = modes.wigner_sample(np.random.default_rng(arguments.seed))
    space = CASSCF(2, 2, 2, active=("C 2px", "N 2px"))
    simulation, mixed = cation(PySCFPotential("hf", arguments.basis, excited=space, state=1))
    simulation.integrator.setStepSize(arguments.step * unit.femtosecond)
    hopping = SurfaceHopping(simulation, TermSurfaces(mixed, "cation/QM"), 1, seed=arguments.seed)
    simulation.context.setPositions(positions)
    simulation.context.setVelocities(velocities)
    total, hops, start = [], 0, time.perf_counter()
    with open(arguments.output, "w", encoding="utf-8") as file:
        file.write('#"Time (fs)","State","P1","E0 (kJ/mol)","E1 (kJ/mol)","Total Energy (kJ/mol)"\n')
        for _ in range(round(arguments.fs / arguments.step)):
            hopping.step(1)
            state = simulation.context.getState(energy=True)
            total.append((state.getPotentialEnergy() + state.getKineticEnergy())._value)
            assert hopping.point is not None
            row = [hopping.populations[1], *hopping.point.energies, total[-1]]
            clock = simulation.currentStep * arguments.step
            file.write(f"{clock:.3f},{hopping.state}," + ",".join(f"{value:.6f}" for value in row) + "\n")
            file.flush()
            for hop in hopping.hops[hops:]:
                print(f"step {hop.step}: {hop}", flush=True)
            hops = len(hopping.hops)
    energies = np.array(total) * EV
    changes = np.diff(energies)
    accepted = [hop.step for hop in hopping.hops if hop.accepted]
    print(f"{len(energies)} steps of {arguments.step} fs, {time.perf_counter() - start:.0f} s")
    print(f"total energy, eV: last less first {energies[-1] - energies[0]:+.5f}, range {np.ptp(energies):.5f}")
    print(f"largest change in a step {abs(changes).max():.5f}")
    for step in accepted:
        around = changes[max(0, step - 3) : step + 2]
        print(f"changes in the steps around the hop at step {step}: {np.round(around, 6).tolist()}")


if __name__ == "__main__":
    main()
