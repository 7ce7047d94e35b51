"""Where the singlet and the triplet of methylene cross, in vacuum and in water, and how likely the spin flips there.

Methylene, CH2, is a triplet in vacuum, and its bent singlet lies a little higher. The singlet has the larger dipole.
Water therefore lowers its energy, and the crossing moves. PySCF computes both spins in the periodic field of the water
(PME). The script finds the lowest crossing in vacuum and in water, and scans the H-C-H angle through it. It writes
spin_crossing.csv and spin_crossing.png to the folder spin_run/.

    python examples/spin_crossing.py                                 # some minutes on two cores
    python examples/spin_crossing.py --method hf --basis 6-31g       # faster; the triplet lies far too low

The water is minimised around the singlet and then held fixed. The probability that the spin flips is that of Landau and
Zener, with the spin-orbit coupling at the crossing from CASSCF(2,2) with effective nuclear charges.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openmm
from matplotlib.figure import Figure
from openmm import unit
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from qmmlmm import Hamiltonian, MixedSystem, PySCFPotential, Region, Term, create_mixed_system
from qmmlmm.geometry import Geometry
from qmmlmm.nonadiabatic import CrossingPoint, crossing_point
from qmmlmm.nonadiabatic.spin_crossing import landau_zener_flip
from qmmlmm.qm import CASSCF
from qmmlmm.qm.spin_orbit import spin_orbit_coupling
from qmmlmm.units import HARTREE_IN_KJ_PER_MOL, HARTREE_IN_PER_CM
from systems.solute_in_water import METHYLENE, build, relaxed
from systems.structure import Structure

SPINS = {"singlet": 1, "triplet": 3}
TERMS = {spin: f"CH2/{spin}" for spin in SPINS}
COLOURS = {"singlet": "#0072b2", "triplet": "#d55e00"}
N_SOLUTE = len(METHYLENE)
TEMPERATURE = 300 * unit.kelvin
ANGLES = (80.0, 150.0)
"""First and last H-C-H angle of a scan, degrees."""


@dataclass(frozen=True)
class AngleScan:
    """Both energies along the H-C-H angle through a crossing point, and that point.

    Parameters
    ----------
    surroundings : str
    point : CrossingPoint
    angle, length : float, degrees and angstrom
        H-C-H angle and mean C-H bond length at the crossing.
    s_squared : float
        <S^2> of the triplet at the crossing; a pure triplet has 2.
    spin_orbit : float, 1/cm
        Spin-orbit coupling of both spins at the crossing.
    flip : float
        Probability that the spin flips when the molecule passes the crossing at the mean thermal speed.
    angles : (n,) float array, degrees
    energies : dict of str to (n,) float array, kJ/mol
        Energies of each spin relative to the crossing.
    """

    surroundings: str
    point: CrossingPoint
    angle: float
    length: float
    s_squared: float
    spin_orbit: float
    flip: float
    angles: np.ndarray
    energies: dict[str, np.ndarray]


def parse_options(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--directory", type=Path, default=Path("spin_run"))
    parser.add_argument("--method", default="b3lyp")
    parser.add_argument("--basis", default="6-31g*")
    parser.add_argument("--grid-level", type=int, default=1, help="grid of the functional, 0 to 9; 3 for results")
    parser.add_argument("--waters", type=int, default=240)
    parser.add_argument("--edge", type=float, default=2.0, help="edge of the box, nm")
    parser.add_argument("--picoseconds", type=float, default=5.0, help="dynamics of the water before it is held fixed")
    parser.add_argument("--points", type=int, default=11, help="number of angles in a scan")
    return parser.parse_args(arguments)


def two_spins(structure: Structure, options: argparse.Namespace) -> MixedSystem:
    """Return a System whose parameter `triplet` switches from the singlet to the triplet of one QM region."""
    qm = PySCFPotential(options.method, options.basis, grid_level=options.grid_level, embedding_grid_level=1)
    region = Region("CH2", range(N_SOLUTE), charge=0, multiplicity=1)
    embedding = "electrostatic" if structure.topology.getPeriodicBoxVectors() is not None else "mechanical"
    terms = [
        Term(qm, region, embedding=embedding, coefficient="1-triplet", name=TERMS["singlet"]),
        Term(qm, region, embedding=embedding, coefficient="triplet", name=TERMS["triplet"], multiplicity=3),
    ]
    hamiltonian = Hamiltonian(terms, parameters={"triplet": 0.0})
    return create_mixed_system(structure.topology, structure.system, hamiltonian)


def contexts(mixed: MixedSystem, positions: np.ndarray) -> dict[str, openmm.Context]:
    """Return a Context for each spin."""
    found = {}
    for spin in SPINS:
        context = openmm.Context(mixed.system, openmm.VerletIntegrator(0.001))
        context.setParameter("triplet", float(spin == "triplet"))
        context.setPositions(positions)
        found[spin] = context
    return found


def bent(positions: np.ndarray, angle: float) -> np.ndarray:
    """Return positions with another H-C-H angle, degrees, and the same bond lengths, plane and bisector."""
    arms = positions[1:N_SOLUTE] - positions[0]
    lengths = np.linalg.norm(arms, axis=1)
    first, second = arms / lengths[:, None]
    along, across = first + second, first - second
    along, across = along / np.linalg.norm(along), across / np.linalg.norm(across)
    half = np.radians(0.5 * angle)
    moved = positions.copy()
    moved[1] = positions[0] + lengths[0] * (np.cos(half) * along + np.sin(half) * across)
    moved[2] = positions[0] + lengths[1] * (np.cos(half) * along - np.sin(half) * across)
    return moved


def angle_and_length(positions: np.ndarray) -> tuple[float, float]:
    """Return the H-C-H angle, degrees, and the mean length of the bonds, angstrom."""
    arms = positions[1:N_SOLUTE] - positions[0]
    lengths = np.linalg.norm(arms, axis=1)
    return float(np.degrees(np.arccos(arms[0] @ arms[1] / lengths.prod()))), float(10.0 * lengths.mean())


def energy(context: openmm.Context) -> float:
    """Return the potential energy, kJ/mol."""
    return context.getState(energy=True).getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)


def crossing_rate(spins: dict[str, openmm.Context]) -> float:
    """Return the rate at which the energies of both spins cross at the mean thermal speed, kJ/(mol ps)."""
    forces = [c.getState(forces=True).getForces(asNumpy=True)._value[:N_SOLUTE] for c in spins.values()]
    masses = [spins["singlet"].getSystem().getParticleMass(k)._value for k in range(N_SOLUTE)]
    kt = (TEMPERATURE * unit.MOLAR_GAS_CONSTANT_R).value_in_unit(unit.kilojoule_per_mole)
    # Along the gradient of the gap the speed is that of one degree of freedom: mean |v| = sqrt(2 kT / (pi m)).
    square = float((np.square(forces[1] - forces[0]).sum(axis=1) / masses).sum())
    return np.sqrt(2.0 * kt / np.pi * square)


def spin_orbit(mixed: MixedSystem, positions: np.ndarray, options: argparse.Namespace) -> float:
    """Return the coupling of singlet and triplet, 1/cm: root of the sum of squares over the triplet's sublevels."""
    term = mixed.evaluated_term(TERMS["singlet"])
    geometry = Geometry.from_quantities(positions, mixed.topology.getPeriodicBoxVectors()).in_bohr()
    sites, field = term.region_geometry(geometry).positions, term.field_at(geometry)
    qm = PySCFPotential("hf", options.basis, excited=CASSCF(2, 2, 2), embedding_grid_level=1)
    external = None if field is None else field.external_field()
    found = spin_orbit_coupling(qm, term.layout.specification, sites, external)
    return float(found.strengths[0, 0]) * HARTREE_IN_PER_CM


def scan(surroundings: str, structure: Structure, positions: np.ndarray, options: argparse.Namespace) -> AngleScan:
    """Find the crossing and scan the H-C-H angle of both spins through it."""
    mixed = two_spins(structure, options)
    spins = contexts(mixed, positions)
    print(f"{surroundings}: searching the crossing", flush=True)
    point = crossing_point(*spins.values(), range(N_SOLUTE))
    angle, length = angle_and_length(point.positions)
    s_squared = float(mixed.results(TERMS["triplet"])["s_squared"])
    coupling = spin_orbit(mixed, point.positions, options)
    flip = landau_zener_flip(coupling / unit.centimeter, crossing_rate(spins))
    # The crossing is one of the angles, and the curves meet there.
    angles = np.unique(np.append(np.linspace(*ANGLES, options.points), angle))
    energies = {spin: np.empty(len(angles)) for spin in SPINS}
    # The scan goes outwards from the crossing, so that each density is a guess for the next one.
    for k in tqdm(np.argsort(abs(angles - angle)), desc=f"{surroundings}: scan", disable=None):
        for spin, context in spins.items():
            context.setPositions(bent(point.positions, angles[k]))
            energies[spin][k] = energy(context) - np.mean(point.energies)
    return AngleScan(surroundings, point, angle, length, s_squared, coupling, flip, angles, energies)


def print_table(scans: list[AngleScan], options: argparse.Namespace) -> None:
    """Print a table of the crossings."""
    print(f"\nCH2, {options.method}/{options.basis}: lowest crossing of singlet and triplet")
    rows = [
        ("angle (degrees)", lambda s: f"{s.angle:.1f}"),
        ("C-H (angstrom)", lambda s: f"{s.length:.3f}"),
        ("both energies (hartree)", lambda s: f"{np.mean(s.point.energies) / HARTREE_IN_KJ_PER_MOL:.6f}"),
        ("gap (kJ/mol)", lambda s: f"{s.point.gap:.4f}"),
        ("projected gradient (hartree/bohr)", lambda s: f"{s.point.projection:.1e}"),
        ("<S2> of the triplet", lambda s: f"{s.s_squared:.4f}"),
        ("lowest singlet on the curve (kJ/mol)", lambda s: f"{s.energies['singlet'].min():.1f}"),
        ("lowest triplet on the curve (kJ/mol)", lambda s: f"{s.energies['triplet'].min():.1f}"),
        ("spin-orbit coupling (1/cm)", lambda s: f"{s.spin_orbit:.2f}"),
        ("spin flip at one passage, 300 K", lambda s: f"{s.flip:.1e}"),
        ("QM evaluations", lambda s: f"{s.point.evaluations}"),
    ]
    print(f"{'':<36}" + "".join(f"{s.surroundings:>16}" for s in scans))
    for name, value in rows:
        print(f"{name:<36}" + "".join(f"{value(s):>16}" for s in scans))


def write_csv(scans: list[AngleScan], path: Path) -> None:
    """Write the energies of all scans."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["surroundings", "angle (degrees)", *(f"{spin} - crossing (kJ/mol)" for spin in SPINS)])
        for curve in scans:
            for k, angle in enumerate(curve.angles):
                values = (f"{curve.energies[spin][k]:.4f}" for spin in SPINS)
                writer.writerow([curve.surroundings, f"{angle:.3f}", *values])


def save_figure(scans: list[AngleScan], path: Path, title: str) -> None:
    """Draw the energies of both spins and their crossing, one panel for each scan."""
    figure = Figure(figsize=(8.0, 4.2), layout="constrained")
    panels = figure.subplots(1, len(scans), sharex=True, sharey=True, squeeze=False)[0]
    for ax, curve in zip(panels, scans, strict=True):
        for spin in SPINS:
            ax.plot(curve.angles, curve.energies[spin], color=COLOURS[spin], marker="o", markersize=3.0, label=spin)
        ax.axvline(curve.angle, color="#8c8c8c", linewidth=0.8, linestyle=":", zorder=0)
        ax.plot(
            [curve.angle], [0.0], marker="*", markersize=15, color="black", linestyle="none", label="crossing point"
        )
        where = f"{curve.angle:.1f}°, {curve.length:.3f} Å"
        ax.text(curve.angle + 2.0, 0.62, where, transform=ax.get_xaxis_transform())
        ax.set_title(curve.surroundings, loc="left")
        ax.set_xlabel("H-C-H angle (degrees)")
    panels[0].set_ylabel("energy less that of the crossing (kJ/mol)")
    panels[-1].legend(frameon=False, loc="upper center")
    figure.suptitle(title, x=0.01, ha="left", fontsize="medium")
    figure.savefig(path, dpi=120)


def run(options: argparse.Namespace) -> list[AngleScan]:
    """Run everything that the script does."""
    begin = time.perf_counter()
    options.directory.mkdir(parents=True, exist_ok=True)
    in_vacuum = build(METHYLENE, n_water=0)
    start = np.array(in_vacuum.positions.value_in_unit(unit.nanometer))
    scans = [scan("vacuum", in_vacuum, start, options)]
    in_water = build(METHYLENE, edge=options.edge, n_water=options.waters)
    start = relaxed(in_water, N_SOLUTE, picoseconds=options.picoseconds)
    scans.append(scan(f"{options.waters} waters", in_water, start, options))
    print_table(scans, options)
    write_csv(scans, options.directory / "spin_crossing.csv")
    title = (
        f"Singlet and triplet of CH$_2$ along the angle, {options.method}/{options.basis}, one arrangement of the water"
    )
    save_figure(scans, options.directory / "spin_crossing.png", title)
    print(f"everything is in {options.directory}; {time.perf_counter() - begin:.0f} s in all")
    return scans


if __name__ == "__main__":
    run(parse_options())
