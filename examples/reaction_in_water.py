"""The barrier of Cl- + CH3Cl -> ClCH3 + Cl- in water: scan, saddle point, frequencies, and two levels.

GFN2-xTB computes both reactants in a box of water under PME. PySCF corrects the energies along the path.

    python examples/reaction_in_water.py        # some four minutes on one core; writes reaction_run/
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
from openmm import app, unit

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from qmmlmm import Hamiltonian, MixedSystem, PySCFPotential, Region, Term, XTBPotential, create_mixed_system
from qmmlmm.reactions import barrier_residues, eyring_rate, frequencies, optimise, saddle_point, scan
from qmmlmm.sampling import Combination, Distance

# Lennard-Jones parameters like GAFF's. Charges and bonds of the region do not count.
REGION_XML = """
<ForceField>
 <AtomTypes>
  <Type name="rx-c" class="rx-c" element="C" mass="12.011"/>
  <Type name="rx-h" class="rx-h" element="H" mass="1.008"/>
  <Type name="rx-cl" class="rx-cl" element="Cl" mass="35.453"/>
 </AtomTypes>
 <Residues>
  <Residue name="RCT">
   <Atom name="C" type="rx-c" charge="0.0"/>
   <Atom name="H1" type="rx-h" charge="0.0"/>
   <Atom name="H2" type="rx-h" charge="0.0"/>
   <Atom name="H3" type="rx-h" charge="0.0"/>
   <Atom name="CL1" type="rx-cl" charge="-0.2"/>
   <Atom name="CL2" type="rx-cl" charge="-0.8"/>
   <Bond atomName1="C" atomName2="H1"/>
   <Bond atomName1="C" atomName2="H2"/>
   <Bond atomName1="C" atomName2="H3"/>
   <Bond atomName1="C" atomName2="CL1"/>
   <Bond atomName1="C" atomName2="CL2"/>
  </Residue>
 </Residues>
 <NonbondedForce coulomb14scale="0.8333333333333334" lj14scale="0.5">
  <UseAttributeFromResidue name="charge"/>
  <Atom type="rx-c" sigma="0.34" epsilon="0.4577"/>
  <Atom type="rx-h" sigma="0.25" epsilon="0.0657"/>
  <Atom type="rx-cl" sigma="0.40" epsilon="0.60"/>
 </NonbondedForce>
</ForceField>
"""

# Near the reactant: the chloride CL2 comes from behind. In angstrom.
GEOMETRY = {
    "C": (0.00, 0.00, 0.00),
    "H1": (-0.25, 1.04, 0.00),
    "H2": (-0.25, -0.52, 0.90),
    "H3": (-0.25, -0.52, -0.90),
    "CL1": (1.85, 0.00, 0.00),
    "CL2": (-2.90, 0.00, 0.00),
}
CENTRES = np.array([0.10, 0.05, 0.02, 0.0, -0.02, -0.05, -0.10])  # nm


def build(edge: float = 1.7) -> tuple[MixedSystem, unit.Quantity]:
    """Return the mixed System in a cube of water, and its positions."""
    topology = app.Topology()
    residue = topology.addResidue("RCT", topology.addChain())
    atoms = {
        name: topology.addAtom(name, app.Element.getBySymbol(name.rstrip("123").capitalize()), residue)
        for name in GEOMETRY
    }
    for name in ("H1", "H2", "H3", "CL1", "CL2"):
        topology.addBond(atoms["C"], atoms[name])
    force_field = app.ForceField("amber14/tip3pfb.xml", io.StringIO(REGION_XML))
    modeller = app.Modeller(topology, np.array(list(GEOMETRY.values())) * unit.angstrom)
    modeller.addSolvent(force_field, boxSize=[edge] * 3 * unit.nanometer, neutralize=False)
    # Flexible water: OpenMM minimises rigid water ten times more slowly.
    system = force_field.createSystem(
        modeller.topology,
        nonbondedMethod=app.PME,
        nonbondedCutoff=0.8 * unit.nanometer,
        switchDistance=0.7 * unit.nanometer,
        rigidWater=False,
    )
    region = Region("reaction", range(len(GEOMETRY)), charge=-1)
    hamiltonian = Hamiltonian([Term(XTBPotential("gfn2-xtb"), region, embedding="electrostatic")])
    return create_mixed_system(modeller.topology, system, hamiltonian), modeller.positions


def kj(energy: unit.Quantity) -> str:
    """Return an energy as text."""
    return f"{energy.value_in_unit(unit.kilojoule_per_mole):.1f} kJ/mol"


def main() -> None:
    """Run everything."""
    mixed, positions = build()
    directory = Path("reaction_run")
    carbon, leaving, entering = 0, 4, 5
    xi = Combination([(1.0, Distance(carbon, entering)), (-1.0, Distance(carbon, leaving))])
    start = optimise(mixed, positions)
    print(f"start: {start.evaluations} QM calls")

    path = scan(mixed, xi, start, centres=CENTRES, both_ways=True, directory=directory)
    print(f"scan: barrier {kj(path.barrier)}, hysteresis {kj(path.hysteresis)}, {path.evaluations} QM calls")

    saddle = saddle_point(mixed, path.highest)
    print(f"saddle point: lowest modes {saddle.wave_numbers[:3].round(0)} 1/cm, {saddle.evaluations} QM calls")
    reactant = optimise(mixed, path.structures[0])
    barrier = saddle.energy - reactant.energy
    before, after = frequencies(mixed, reactant).thermochemistry(), saddle.frequencies.thermochemistry()
    free = barrier + after.free_energy - before.free_energy
    rate = eyring_rate(free, negative_wave_number=saddle.wave_numbers[0]) * unit.second
    print(f"barrier {kj(barrier)}, {kj(free)} with zero-point and thermal terms, rate constant {rate:.1e} 1/s")
    print(f"  {after}")
    saddle.frequencies.write_mode(directory / "mode.pdb")

    print(path.single_points(PySCFPotential("b3lyp", "6-31g*")))
    print(barrier_residues(mixed, reactant, saddle))


if __name__ == "__main__":
    main()
