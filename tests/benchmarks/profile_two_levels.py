"""The profile of a torsion in water at an ab initio level: reweighted from xTB windows, and by windows of its own.

    python tests/benchmarks/profile_two_levels.py --directory DIRECTORY [--json FILE]

Some ten minutes; it continues a stopped run.

Hydrogen peroxide in a droplet of 20 flexible waters at 300 K. GFN2-xTB/MM samples three windows of the torsion from 85
to 115 degrees. Every tenth frame gets its weight in HF/3-21G/MM. The same windows are then run with HF/3-21G/MM. It
prints both profiles with their errors.

At both levels springs make bonds and angles of the peroxide some ten times stiffer: the energies of the two levels
differ mostly by bond lengths, and without the springs (SPRING, BEND = 0) a frame in a hundred carries the weight. With
them the difference follows the water around the peroxide, which moves slowly: a bin has few independent samples.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openmm
from openmm import app, unit

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).parent)]

from record import Table, add_option, print_tables, write_record

from qmmlmm import Hamiltonian, MixedSystem, PySCFPotential, Region, Term, XTBPotential, create_mixed_system
from qmmlmm.free_energy import UmbrellaProfile, UmbrellaSampling
from qmmlmm.sampling import Torsion
from qmmlmm.units import GAS_CONSTANT

WATERS = 20
TEMPERATURE = 300.0
CENTRES = np.radians([85.0, 100.0, 115.0])
FORCE_CONSTANT = 80.0  # kJ/(mol rad^2): windows 10 degrees wide, 15 degrees apart
EDGES = list(np.radians(np.arange(77.5, 123.0, 7.5)))
TORSION = Torsion(0, 1, 2, 3)
SPRING, BEND = 5e6, 4e3  # kJ/(mol nm^2), kJ/(mol rad^2)
TIME_STEP = 0.0007  # ps; hydrogens have three times their mass, which changes no average
LEVELS = {"xtb": XTBPotential("gfn2-xtb"), "hf": PySCFPotential("hf", "3-21g", density_fit=False)}


def droplet() -> tuple[app.Topology, openmm.System, openmm.Force, np.ndarray]:
    """Return hydrogen peroxide and the waters around it, the springs of its bonds, and positions in nm."""
    topology, system = app.Topology(), openmm.System()
    chain = topology.addChain()
    residue = topology.addResidue("HPX", chain)
    atoms = [topology.addAtom(n, app.Element.getBySymbol(n[0]), residue) for n in ("H1", "O1", "O2", "H2")]
    for a, b in ((0, 1), (1, 2), (2, 3)):
        topology.addBond(atoms[a], atoms[b])
    water = app.Modeller(app.Topology(), [])
    force_field = app.ForceField("amber14/tip3pfb.xml")
    water.addSolvent(force_field, boxSize=[1.6] * 3 * unit.nanometer)
    middle = 0.8
    positions = np.array(water.positions.value_in_unit(unit.nanometer))
    out, turn = np.radians(101.0), np.radians(100.0)
    first = np.array([0.097 * np.cos(out), 0.097 * np.sin(out), 0.0])
    last = np.array(
        [0.145 - 0.097 * np.cos(out), 0.097 * np.sin(out) * np.cos(turn), 0.097 * np.sin(out) * np.sin(turn)]
    )
    solute = np.array([first, [0.0, 0.0, 0.0], [0.145, 0.0, 0.0], last]) + middle - np.array([0.07, 0.0, 0.0])
    molecules = [[atom.index for atom in residue.atoms()] for residue in water.topology.residues()]
    away = [np.linalg.norm(positions[m][:, None] - solute[None], axis=-1).min() for m in molecules]
    near = [k for k in np.argsort(away) if away[k] > 0.16][:WATERS]
    for _ in near:
        residue = topology.addResidue("HOH", chain)
        waters = [topology.addAtom(n, app.Element.getBySymbol(n[0]), residue) for n in ("O", "H1", "H2")]
        topology.addBond(waters[0], waters[1])
        topology.addBond(waters[0], waters[2])
    placed = np.vstack([solute, *(positions[molecules[k]] for k in near)])
    bonds, angles, nonbonded = openmm.HarmonicBondForce(), openmm.HarmonicAngleForce(), openmm.NonbondedForce()
    for kind, charge, mass in (("H", 0.42, 3.024), ("O", -0.42, 13.983), ("O", -0.42, 13.983), ("H", 0.42, 3.024)):
        system.addParticle(mass)
        nonbonded.addParticle(charge, 0.307 if kind == "O" else 0.1, 0.71 if kind == "O" else 0.0)
    for a in range(4):
        for b in range(a):
            nonbonded.addException(a, b, 0.0, 0.1, 0.0)
    for k in range(WATERS):
        o, one, two = (4 + 3 * k + j for j in range(3))
        for mass, charge, sigma, epsilon in ((11.967, -0.834, 0.315, 0.636), *[(3.024, 0.417, 0.1, 0.0)] * 2):
            system.addParticle(mass)
            nonbonded.addParticle(charge, sigma, epsilon)
        for a, b in ((o, one), (o, two), (one, two)):
            nonbonded.addException(a, b, 0.0, 0.1, 0.0)
        for hydrogen in (one, two):
            bonds.addBond(o, hydrogen, 0.09572, 4.6e5)
        angles.addAngle(one, o, two, np.radians(104.52), 628.0)
    bonds.addBond(1, 2, 0.145, 0.0)
    # A compound force, and not one of the force field, which a region replaces.
    springs = openmm.CustomCompoundBondForce(
        4,
        "0.5*k*((distance(p1,p2)-h)^2+(distance(p2,p3)-o)^2+(distance(p3,p4)-h)^2)"
        "+0.5*b*((angle(p1,p2,p3)-a)^2+(angle(p2,p3,p4)-a)^2)",
    )
    for name, value in (("k", SPRING), ("b", BEND), ("h", 0.0965), ("o", 0.1455), ("a", np.radians(101.0))):
        springs.addGlobalParameter(name, value)
    springs.addBond(range(4))
    hull = openmm.CustomExternalForce("500*max(0, r-0.75)^2; r=sqrt((x-0.8)^2+(y-0.8)^2+(z-0.8)^2)")  # no evaporation
    for k in range(system.getNumParticles()):
        hull.addParticle(k)
    for force in (bonds, angles, nonbonded, hull):
        system.addForce(force)
    return topology, system, springs, placed


def relaxed_start() -> np.ndarray:
    """Return positions with waters that the force field has relaxed around the peroxide, nm."""
    _, system, _, positions = droplet()
    for k in range(4):
        system.setParticleMass(k, 0.0)
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatform("Reference"))
    context.setPositions(positions)
    openmm.LocalEnergyMinimizer.minimize(context, 10.0, 200)
    return np.array(context.getState(positions=True).getPositions(asNumpy=True)._value)


@dataclass(frozen=True)
class Simulation:
    """Makes the Simulation of a window at a level."""

    level: str

    def __call__(self, umbrella: openmm.Force) -> tuple[MixedSystem, app.Simulation]:
        topology, system, springs, _ = droplet()
        term = Term(LEVELS[self.level], Region("peroxide", range(4), charge=0), embedding="electrostatic")
        mixed = create_mixed_system(topology, system, Hamiltonian([term]))
        mixed.system.addForce(springs)
        mixed.system.addForce(umbrella)
        integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, 5.0, TIME_STEP)
        platform = openmm.Platform.getPlatform("Reference")
        return mixed, app.Simulation(topology, mixed.system, integrator, platform)


def sampling(folder: Path, level: str, steps: int, equilibration: int) -> UmbrellaSampling:
    """Return the windows at a level."""
    return UmbrellaSampling(
        folder / level, Simulation(level), TORSION, CENTRES, FORCE_CONSTANT, relaxed_start(), temperature=TEMPERATURE,
        steps=steps, equilibration=equilibration, interval=5, frame_interval=10, checkpoint_interval=100,
        pull_steps=100, seed=3, name="torsion",
    )  # fmt: skip


def normed(profile: UmbrellaProfile) -> np.ndarray:
    """Return free energies of bins whose probabilities sum to one, kJ/mol, to which their errors belong."""
    energy, kt = profile.free_energy._value, GAS_CONSTANT * TEMPERATURE
    return energy + kt * np.log(np.exp(-energy / kt).sum())


def main() -> None:
    """Run both, and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--directory", type=Path, default=Path("profile_two_levels"))
    parser.add_argument("--cheap-steps", type=int, default=4000)
    parser.add_argument("--steps", type=int, default=800, help="of each window at the ab initio level")
    add_option(parser)
    parser.add_argument("--every", type=int, default=1, help="one of so many frames gets its weight")
    options = parser.parse_args()
    options.directory.mkdir(exist_ok=True)
    times = [time.perf_counter()]
    cheap = sampling(options.directory, "xtb", options.cheap_steps, 400)
    cheap.run()
    times.append(time.perf_counter())
    better = cheap.reweighted("hf", Simulation("hf"), every=options.every, edges=EDGES)
    times.append(time.perf_counter())
    direct = sampling(options.directory, "hf", options.steps, 200)
    direct.run()
    times.append(time.perf_counter())
    plain, wanted = (each.profile(edges=EDGES) for each in (cheap, direct))
    rows = []
    first, second, third = (normed(each) for each in (plain, better, wanted))
    errors = [each.error._value for each in (plain, better, wanted)]
    off = (second - third) / np.hypot(errors[1], errors[2])
    for k, value in enumerate(wanted.values):
        cells = [[float(e[k]), float(s[k])] for e, s in zip((first, second, third), errors, strict=True)]
        rows.append((float(np.degrees(value)), *cells, round(float(off[k]), 1), round(float(better.samples[k]))))
    columns = (
        "torsion, degrees",
        "GFN2-xTB, kJ/mol",
        "HF/3-21G, reweighted",
        "HF/3-21G, direct",
        "the last two differ by, standard errors",
        "effective samples",
    )
    table = Table("", columns, tuple(rows))
    print_tables([table])
    write_record(options.json, [table], "Free energy of hydrogen peroxide in a droplet, with springs; single run.")
    print(f"largest difference {abs(off).max():.2f} standard errors")
    print("seconds: xTB windows {:.0f}, weights {:.0f}, HF windows {:.0f}".format(*np.diff(times)))


if __name__ == "__main__":
    main()
