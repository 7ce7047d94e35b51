"""Surface hopping of ethylene or methaniminium, SA-3-CASSCF(2,2): total energy of a trajectory and across hops.

    python tests/benchmarks/surface_hopping_casscf.py [--basis sto-3g] [--fs 100] [--step 0.5] [--seed 1]
        [--molecule ethylene] [--twist 60] [--output FILE.csv] [--json FILE]

Starts on S1 from a twisted geometry with velocities of 300 K; fewest switches by local diabatisation. Prints drift of
the total energy, its largest change in a step, and its change when the surface and the velocities change at a hop;
writes a row for every step. All singlets of the two orbitals are averaged, so that no root can flip. Both molecules
come to geometries where an active orbital changes on the hot S0 after the hop, which ends the run with an error.
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
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from record import Table, add_option, print_tables, write_record

from qmmlmm import Hamiltonian, MixedSystem, PySCFPotential, Region, Term, create_mixed_system
from qmmlmm.nonadiabatic import SurfaceHopping, TermSurfaces, VelocityVerletIntegrator
from qmmlmm.qm import CASSCF
from qmmlmm.units import HARTREE_IN_EV, HARTREE_IN_KJ_PER_MOL, FloatArray

EV = HARTREE_IN_EV / HARTREE_IN_KJ_PER_MOL
GEOMETRY = (  # angstrom
    ("C", 0.0, 0.0, 0.63),
    ("N", 0.0, 0.0, -0.65),
    ("H", 0.0, 0.94, 1.17),
    ("H", 0.0, -0.94, 1.17),
    ("H", 0.0, 0.86, -1.19),
    ("H", 0.0, -0.86, -1.19),
)
N_ATOMS = len(GEOMETRY)


def molecule(potential: PySCFPotential, charge: int) -> tuple[app.Simulation, MixedSystem]:
    """Return a Simulation of the molecule alone."""
    topology, system = app.Topology(), openmm.System()
    residue = topology.addResidue("MOL", topology.addChain())
    force = openmm.NonbondedForce()
    for symbol, *_ in GEOMETRY:
        element = app.Element.getBySymbol("C" if symbol == "N" and not charge else symbol)
        topology.addAtom(symbol, element, residue)
        system.addParticle(element.mass)
        force.addParticle(charge / N_ATOMS, 0.3, 0.0)
    system.addForce(force)
    region = Region("molecule", range(N_ATOMS), charge=charge, multiplicity=1)
    mixed = create_mixed_system(topology, system, Hamiltonian([Term(potential, region, embedding="mechanical")]))
    platform = openmm.Platform.getPlatform("Reference")
    simulation = app.Simulation(topology, mixed.system, VelocityVerletIntegrator(0.0005), platform)
    return simulation, mixed


def twisted(degrees: float) -> FloatArray:
    """Return positions in nm, the CH2 group turned about the bond."""
    positions = np.array([atom[1:] for atom in GEOMETRY]) * 0.1
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    positions[2:4] = positions[2:4] @ np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]]).T
    return positions


def total_energy(context: openmm.Context) -> float:
    """Return the total energy in kJ/mol."""
    state = context.getState(energy=True)
    return float((state.getPotentialEnergy() + state.getKineticEnergy())._value)


class EnergyAroundHops:
    """Stands between the integrator and the sampler, and looks at the total energy before and after it."""

    def __init__(self, hopping: SurfaceHopping) -> None:
        self.hopping = hopping
        self.changes: dict[int, float] = {}

    def before_step(self) -> None:
        self.hopping.before_step()

    def after_step(self) -> None:
        context, count = self.hopping.simulation.context, len(self.hopping.hops)
        before = total_energy(context)
        self.hopping.after_step()
        if len(self.hopping.hops) > count:
            self.changes[self.hopping.hops[-1].step] = total_energy(context) - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--basis", default="sto-3g")
    parser.add_argument("--fs", type=float, default=100.0)
    parser.add_argument("--step", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--molecule", choices=("ethylene", "methaniminium"), default="ethylene")
    parser.add_argument("--twist", type=float, default=60.0)
    parser.add_argument("--output", default="surface_hopping.csv")
    add_option(parser)
    options = parser.parse_args()
    potential = PySCFPotential("hf", options.basis, excited=CASSCF(3, 2, 2), state=1)
    simulation, mixed = molecule(potential, int(options.molecule == "methaniminium"))
    simulation.integrator.setStepSize(options.step * unit.femtosecond)
    hopping = SurfaceHopping(simulation, TermSurfaces(mixed, "molecule/QM"), 1, seed=options.seed)
    around = EnergyAroundHops(hopping)
    simulation.integrator.listener = around
    simulation.context.setPositions(twisted(options.twist))
    simulation.context.setVelocitiesToTemperature(300.0, options.seed)
    total, hops, start = [], 0, time.perf_counter()
    with open(options.output, "w", encoding="utf-8") as file:
        file.write(
            '#"Time (fs)","State","P0","P1","P2","E0 (kJ/mol)","E1 (kJ/mol)","E2 (kJ/mol)","Total Energy (kJ/mol)"\n'
        )
        for _ in range(round(options.fs / options.step)):
            hopping.step(1)
            total.append(total_energy(simulation.context))
            assert hopping.point is not None
            row = [*hopping.populations, *hopping.point.energies, total[-1]]
            clock = simulation.currentStep * options.step
            file.write(f"{clock:.3f},{hopping.state}," + ",".join(f"{value:.6f}" for value in row) + "\n")
            file.flush()
            for hop in hopping.hops[hops:]:
                change = around.changes[hop.step] * EV
                print(f"{hop}: the total energy changes by {change:+.2e} eV", flush=True)
            hops = len(hopping.hops)
    energies = np.array(total) * EV
    changes = np.diff(energies)
    print(f"{len(energies)} steps of {options.step} fs, {time.perf_counter() - start:.0f} s")
    rows = [
        ("last less first", float(energies[-1] - energies[0])),
        ("range", float(np.ptp(energies))),
        ("largest change in a step", float(abs(changes).max())),
    ]
    for hop in hopping.hops:
        name = f"change at the hop S{hop.origin} to S{hop.target}, {hop.step * options.step:g} fs"
        rows.append((name, around.changes[hop.step] * EV))
    table = Table("", ("total energy", "eV"), tuple(rows))
    print_tables([table])
    notes = f"{options.molecule}, SA-3-CASSCF(2,2)/{options.basis}, {options.fs:g} fs in steps of {options.step:g} fs."
    write_record(options.json, [table], notes)


if __name__ == "__main__":
    main()
