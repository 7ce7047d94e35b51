"""How well dynamics at each level keeps the energy: drift of the total energy without a thermostat.

    python tests/benchmarks/energy_conservation.py mm|ml|qm|acetone|xtb [--ps 20] [--platform CPU]
        [--ml-precision mixed] [--output DIRECTORY] [--json FILE]

mm       p-xylene in flexible water, force field alone: what OpenMM itself conserves.
ml       the same with p-xylene as an embedded ML region.
qm       one water of a box of flexible water as an embedded QM region.
acetone  acetone in 700 flexible waters, force field alone.
xtb      the same with acetone as an embedded GFN2-xTB region.

Velocity Verlet with 0.5 fs after equilibration at 300 K. The Lennard-Jones interaction is switched off smoothly and
nothing is left of the screened Coulomb interaction at its cutoff, so that the force field has no steps of its own.
Prints the drift and its error, and writes the energies and a figure. A run that was stopped leaves its energies:
`--fit FILE ...` prints the drift of each. A record has the runs of one command: `--fit` makes one of several levels.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import openmm
from openmm import app, unit
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from record import Table, add_option, print_tables, write_record

from qmmlmm import Hamiltonian, MLPotential, PySCFPotential, Region, Term, XTBPotential, create_mixed_system
from qmmlmm.embedding.torch_term import MeshPrecision
from qmmlmm.units import FloatArray
from systems import acetone_water, solution, t4_lysozyme
from systems.structure import Structure

TIME_STEP = 0.0005  # ps
SAMPLE_EVERY = {"mm": 20, "ml": 20, "qm": 5, "acetone": 20, "xtb": 20}  # steps
FORCE_FIELD = ("mm", "acetone")
TEMPERATURE = 300.0  # K
CUTOFF = 0.8  # nm
SWITCH = 0.65  # nm
REACH = 4.0
"""alpha times the cutoff: erfc(4) is 1.5e-8."""
MESH_WIDTH = 0.065  # nm
BOLTZMANN = unit.MOLAR_GAS_CONSTANT_R.value_in_unit(unit.kilojoule_per_mole / unit.kelvin)


def p_xylene_in_water() -> Structure:
    """Build p-xylene (GAFF) from the complex with T4 lysozyme, alone among 280 flexible TIP3P waters."""
    complex_ = t4_lysozyme.build(constraints=None, rigid_water=False, remove_cm_motion=False)
    ligand = list(t4_lysozyme.LIGAND)
    modeller = app.Modeller(complex_.topology, complex_.positions)
    inside = set(ligand)
    modeller.delete([atom for atom in complex_.topology.atoms() if atom.index not in inside])
    solvent = solution.Solvent(n_water=280)
    box = 2.1 * np.eye(3)
    positions = np.array(modeller.positions.value_in_unit(unit.nanometer))
    positions += 1.05 - positions.mean(axis=0)
    placed = solution.place_solvent(positions, box, solvent, np.random.default_rng(1))
    system = solution.solution_system(
        _terms_inside(complex_.system, ligand),
        solvent,
        placed.box_quantity,
        nonbonded_method=app.PME,
        nonbonded_cutoff=CUTOFF * unit.nanometer,
        constraints=None,
        rigid_water=False,
        ewald_error_tolerance=5e-4,
        hydrogen_mass=None,
        remove_cm_motion=False,
    )
    topology = solution.join_topologies(modeller.topology, solvent, placed.box_quantity)
    return Structure(topology, system, placed.positions_quantity)


def flexible_water() -> Structure:
    """Build 270 flexible TIP3P waters."""
    solvent = solution.Solvent(n_water=270)
    placed = solution.place_solvent(np.empty((0, 3)), 2.06 * np.eye(3), solvent, np.random.default_rng(1))
    topology = solution.join_topologies(app.Topology(), solvent, placed.box_quantity)
    system = app.ForceField(solution.WATER_XML["tip3p"]).createSystem(
        topology,
        nonbondedMethod=app.PME,
        nonbondedCutoff=CUTOFF * unit.nanometer,
        rigidWater=False,
        removeCMMotion=False,
    )
    return Structure(topology, system, placed.positions_quantity)


def _terms_inside(system: openmm.System, atoms: list[int]) -> openmm.System:
    """Return a System of some atoms with the terms among them."""
    index = {atom: k for k, atom in enumerate(atoms)}
    result = openmm.System()
    for atom in atoms:
        result.addParticle(system.getParticleMass(atom))
    bonds, angles, torsions, nonbonded = (
        openmm.HarmonicBondForce(),
        openmm.HarmonicAngleForce(),
        openmm.PeriodicTorsionForce(),
        openmm.NonbondedForce(),
    )
    for force in system.getForces():
        if isinstance(force, openmm.HarmonicBondForce):
            terms = [(force.getBondParameters(k), 2, bonds.addBond) for k in range(force.getNumBonds())]
        elif isinstance(force, openmm.HarmonicAngleForce):
            terms = [(force.getAngleParameters(k), 3, angles.addAngle) for k in range(force.getNumAngles())]
        elif isinstance(force, openmm.PeriodicTorsionForce):
            terms = [(force.getTorsionParameters(k), 4, torsions.addTorsion) for k in range(force.getNumTorsions())]
        elif isinstance(force, openmm.NonbondedForce):
            for atom in atoms:
                nonbonded.addParticle(*force.getParticleParameters(atom))
            terms = [
                (force.getExceptionParameters(k), 2, nonbonded.addException) for k in range(force.getNumExceptions())
            ]
        else:
            raise TypeError(f"{type(force).__name__} is not expected in {t4_lysozyme.__name__}")
        for parameters, size, add in terms:
            if all(particle in index for particle in parameters[:size]):
                add(*(index[particle] for particle in parameters[:size]), *parameters[size:])
    for force in (bonds, angles, torsions, nonbonded):
        result.addForce(force)
    return result


def make_smooth(system: openmm.System) -> None:
    """Let the force field have no steps: Lennard-Jones switched off, nothing left of erfc at the cutoff."""
    width = system.getDefaultPeriodicBoxVectors()[0][0].value_in_unit(unit.nanometer)
    points = next(n for n in (36, 40, 45, 48, 50, 54, 60) if width / n < MESH_WIDTH)
    for force in system.getForces():
        if isinstance(force, openmm.NonbondedForce):
            force.setCutoffDistance(CUTOFF)
            force.setUseSwitchingFunction(True)
            force.setSwitchingDistance(SWITCH)
            force.setPMEParameters(REACH / CUTOFF, points, points, points)


def build(level: str, basis: str, ml_precision: MeshPrecision) -> tuple[Structure, openmm.System]:
    """Return a structure and the System of a level."""
    if level == "qm":
        structure = flexible_water()
        make_smooth(structure.system)
        # Forces are exact at any embedding grid, so that a coarse one does not show in the drift.
        potential = PySCFPotential("hf", basis, embedding_grid_level=0, density_fit=False)
        term = Term(potential, Region("water", range(3)), embedding="electrostatic")
        return structure, create_mixed_system(structure.topology, structure.system, Hamiltonian([term])).system
    if level in ("acetone", "xtb"):
        structure = acetone_water.build(constraints=None, rigid_water=False, remove_cm_motion=False)
        make_smooth(structure.system)
        if level == "acetone":
            return structure, structure.system
        term = Term(XTBPotential(), Region("acetone", acetone_water.builder.ACETONE), embedding="electrostatic")
        return structure, create_mixed_system(structure.topology, structure.system, Hamiltonian([term])).system
    structure = p_xylene_in_water()
    make_smooth(structure.system)
    if level == "mm":
        return structure, structure.system
    # Its network is recorded in single precision, whose rounding is in the drift.
    model = MLPotential.load(ROOT / "examples" / "models" / "p_xylene.pt")
    region = Region("p-xylene", range(len(t4_lysozyme.LIGAND)))
    hamiltonian = Hamiltonian([Term(model, region, embedding="electrostatic")])
    mixed = create_mixed_system(structure.topology, structure.system, hamiltonian, ml_precision=ml_precision)
    return structure, mixed.system


def equilibrated(structure: Structure, system: openmm.System, level: str, seed: int, platform: str) -> openmm.Context:
    """Return a context at 300 K, from the force field first and then from the level itself."""
    state_of = (structure.positions, None)
    stages = [(structure.system, 4000), (system, 200 if level == "qm" else 1000)]
    for stage, steps in stages[:1] if level in FORCE_FIELD else stages:
        integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, 10.0, TIME_STEP)
        integrator.setRandomNumberSeed(seed)
        context = openmm.Context(stage, integrator, openmm.Platform.getPlatform("CPU"))
        context.setPositions(state_of[0])
        if state_of[1] is None:
            openmm.LocalEnergyMinimizer.minimize(context, maxIterations=100)
            context.setVelocitiesToTemperature(TEMPERATURE, seed)
        else:
            context.setVelocities(state_of[1])
        for _ in tqdm(range(steps // 20), desc="equilibration", disable=not sys.stderr.isatty()):
            integrator.step(20)
        state = context.getState(positions=True, velocities=True)
        state_of = (state.getPositions(asNumpy=True), state.getVelocities(asNumpy=True))
        del context
    masses = np.array([system.getParticleMass(k)._value for k in range(system.getNumParticles())])[:, None]
    velocities = state_of[1]._value - (masses * state_of[1]._value).sum(0) / masses.sum()
    integrator = openmm.VerletIntegrator(TIME_STEP)
    properties = {} if platform in ("CPU", "Reference") else {"Precision": "double"}
    context = openmm.Context(system, integrator, openmm.Platform.getPlatform(platform), properties)
    context.setPositions(state_of[0])
    context.setVelocities(velocities)
    return context


def drift_of(times: FloatArray, energies: FloatArray, n_blocks: int) -> tuple[float, float]:
    """Return the slope of a line through block averages, with its standard error."""
    used = len(times) // n_blocks * n_blocks
    t = times[:used].reshape(n_blocks, -1).mean(axis=1)
    e = energies[:used].reshape(n_blocks, -1).mean(axis=1)
    away = t - t.mean()
    slope = float(away @ e / (away @ away))
    residual = e - e.mean() - slope * away
    return slope, float(np.sqrt(residual @ residual / (n_blocks - 2) / (away @ away)))


COLUMNS = ("run", "ps", "kelvin", "drift, kT/(ns dof)", "fluctuation of the energy, kJ/mol")


def report(path: Path) -> tuple[str | float | list[float], ...]:
    """Print the drift of a run from its energies, draw them, and return a row."""
    header = path.read_text(encoding="utf-8").splitlines()[0]
    n_freedoms = int(header.split("degrees of freedom: ")[1].split()[0])
    columns = np.loadtxt(path, delimiter=",", comments="#", ndmin=2)
    times, potential, kinetic = columns.T
    total = potential + kinetic
    temperature = 2.0 * kinetic.mean() / (n_freedoms * BOLTZMANN)
    factor = 1000.0 / (BOLTZMANN * temperature * n_freedoms)  # kJ/(mol ps) to kT per ns and degree of freedom
    print(f"{path.name}: {times[-1]:.2f} ps, {temperature:.0f} K, {n_freedoms} degrees of freedom")
    print(f"total energy: fluctuation {total.std():.3f} kJ/mol; of the kinetic energy {kinetic.std():.1f} kJ/mol")
    results = []
    for n_blocks in (8, 16, 32):  # blocks that are too short for the correlation have too small an error
        slope, error = drift_of(times, total, n_blocks)
        results.append((factor * slope, factor * error))
        print(f"drift, {n_blocks:2d} blocks: {factor * slope:+.5f} +- {factor * error:.5f} kT/(ns dof)")
    value, error = max(results, key=lambda pair: pair[1])
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.plot(times, total - total.mean(), linewidth=0.5)
    axes.set_xlabel("time, ps")
    axes.set_ylabel("total energy - mean, kJ/mol")
    axes.set_title(f"{path.stem}: drift {value:+.4f} ± {error:.4f} kT/(ns dof), single run", fontsize=10)
    figure.savefig(path.with_suffix(".png"), dpi=150)
    return path.stem, float(times[-1]), float(temperature), [value, error], float(total.std())


def run(
    level: str,
    picoseconds: float,
    platform: str,
    basis: str,
    seed: int,
    output: Path,
    ml_precision: MeshPrecision = "double",
) -> Path:
    """Equilibrate and run without a thermostat; return the file of the energies."""
    structure, system = build(level, basis, ml_precision)
    context = equilibrated(structure, system, level, seed, platform)
    n_freedoms = 3 * system.getNumParticles() - system.getNumConstraints() - 3
    every = SAMPLE_EVERY[level]
    n_samples = round(picoseconds / TIME_STEP / every)
    name = level if ml_precision == "double" else f"{level}_{ml_precision}"
    path = output / f"energy_{name}_{platform}_{seed}.csv"
    start = time.perf_counter()
    with path.open("w", encoding="utf-8") as file:
        file.write(f"# degrees of freedom: {n_freedoms} ; time (ps), potential and kinetic energy (kJ/mol)\n")
        for sample in tqdm(range(n_samples + 1), desc=level, disable=not sys.stderr.isatty()):
            if sample:
                context.getIntegrator().step(every)
            state = context.getState(energy=True)
            energies = (state.getPotentialEnergy()._value, state.getKineticEnergy()._value)
            file.write(f"{sample * every * TIME_STEP:.4f},{energies[0]:.6f},{energies[1]:.6f}\n")
            file.flush()
    seconds = time.perf_counter() - start
    print(f"{1000 * seconds / (n_samples * every):.1f} ms per step")
    return path


def main() -> None:
    """Run one level, or fit energies that are there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("level", choices=tuple(SAMPLE_EVERY), nargs="?")
    parser.add_argument("--ps", type=float, help="length; 20, and 2 for qm and 5 for xtb, if not given")
    parser.add_argument("--platform", default="CPU", help="OpenMM platform; double precision but for CPU")
    parser.add_argument("--basis", default="3-21g", help="basis set of the Hartree-Fock calculation")
    parser.add_argument("--ml-precision", choices=("double", "mixed"), default="double", help="of the mesh of ml")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("energy_conservation_run"))
    parser.add_argument("--fit", type=Path, nargs="*", help="report on energies written before")
    add_option(parser)
    options = parser.parse_args()
    if options.level is None and not options.fit:
        parser.error("give a level, or --fit")
    paths = options.fit or [run_level(options)]
    table = Table("", COLUMNS, tuple(report(path) for path in paths))
    print_tables([table])
    write_record(options.json, [table], "Velocity Verlet, 0.5 fs, from 300 K; single runs.")


def run_level(options: argparse.Namespace) -> Path:
    """Run a level and return the file of its energies."""
    options.output.mkdir(parents=True, exist_ok=True)
    picoseconds = options.ps or {"qm": 2.0, "xtb": 5.0}.get(options.level, 20.0)
    return run(
        options.level, picoseconds, options.platform, options.basis, options.seed, options.output, options.ml_precision
    )


if __name__ == "__main__":
    main()
