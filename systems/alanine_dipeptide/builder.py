"""Alanine dipeptide (ACE-ALA-NME) with three force fields, in water or in vacuum."""

from pathlib import Path

import numpy as np
import openmm
from openmm import app, unit

from systems import equilibration, package_data, reference, solution
from systems.coordinates import Coordinates, load_coordinates, save_coordinates, wrap_molecules
from systems.options import SystemOptions, with_option_keywords
from systems.package_data import PackageFile
from systems.structure import Structure

FOLDER = Path(__file__).resolve().parent

# Indices of the peptide.
PEPTIDE = range(22)

SOLVENTS = {
    "amber96": solution.Solvent(n_water=749),
    "amber14": solution.Solvent(n_water=600, water_model="tip4pew"),
    "charmm36": solution.Solvent(n_water=600),
}
_XML = {
    "amber14": ("amber14/protein.ff14SB.xml", "amber14/tip4pew.xml"),
    "charmm36": ("charmm36.xml", "charmm36/water.xml"),
}

EXPLICIT_PRMTOP = PackageFile(
    "openmmtools",
    "0.27.0",
    "openmmtools/data/alanine-dipeptide-explicit/alanine-dipeptide.prmtop",
    "c45ad8bdcdfc62584add4093edde188f4ab986f831da6c11a83e017873592106",
)
EXPLICIT_INPCRD = PackageFile(
    "openmmtools",
    "0.27.0",
    "openmmtools/data/alanine-dipeptide-explicit/alanine-dipeptide.crd",
    "b2c167dc2be9aaba742ce85b44570a885c1ba1cb1d8ecddd29dab8878bb9b5e6",
)

DEFAULT = SystemOptions()


@with_option_keywords
def build(*, force_field: str = "amber96", vacuum: bool = False, options: SystemOptions = DEFAULT) -> Structure:
    """Build the peptide with equilibrated coordinates.

    Parameters
    ----------
    force_field : str
        "amber96" (ff96 of openmmtools, TIP3P), "amber14" (ff14SB, TIP4P-Ew with virtual sites) or
        "charmm36" (with CMAP and Lennard-Jones terms in a CustomNonbondedForce, CHARMM's TIP3P).
    vacuum : bool
        Whether there is only the peptide, without a box.
    options : SystemOptions
        Options of the force field. Each field can be given as a keyword.

    Returns
    -------
    Structure
        The first 22 atoms are the peptide, residues ACE, ALA and NME.

    Raises
    ------
    ValueError
        If the force field is unknown.
    """
    _check_force_field(force_field)
    coordinates = load_coordinates(_coordinates_file(force_field))
    if vacuum:
        coordinates = Coordinates(coordinates.positions[: len(PEPTIDE)], coordinates.box_vectors)
    return _assemble(force_field, None if vacuum else SOLVENTS[force_field], coordinates, options)


def _check_force_field(force_field: str) -> None:
    if force_field not in SOLVENTS:
        raise ValueError(f"the force field is one of {', '.join(SOLVENTS)}, and {force_field!r} was given")


def _coordinates_file(force_field: str) -> Path:
    return FOLDER / f"{force_field}.npz"


def _assemble(
    force_field: str, solvent: solution.Solvent | None, coordinates: Coordinates, options: SystemOptions
) -> Structure:
    """Topology and System around given coordinates; in a vacuum without a solvent."""
    prmtop = app.AmberPrmtopFile(str(FOLDER / "alanine_dipeptide.prmtop"))
    box = coordinates.box_quantity
    topology = prmtop.topology if solvent is None else solution.join_topologies(prmtop.topology, solvent, box)
    if force_field != "amber96":
        typed, templates = _topology_for_templates(topology) if force_field == "charmm36" else (topology, {})
        system: openmm.System = app.ForceField(*_XML[force_field]).createSystem(
            typed, residueTemplates=templates, **options.arguments(box=solvent is not None)
        )
    elif solvent is None:
        system = prmtop.createSystem(**options.arguments(box=False))
    else:
        system = prmtop.createSystem(**options.part().arguments())
        solution.solution_system(system, solvent, box, options=options)
    return Structure(topology, system, coordinates.positions_quantity)


def _topology_for_templates(topology: app.Topology) -> tuple[app.Topology, dict[app.topology.Residue, str]]:
    """The same atoms with the peptide as one residue, and the template that it takes.

    CHARMM has no residues ACE and NME, only patches; its whole molecule ALAD has the protein's types. OpenMM
    finds AANM (the general force field's types) for the same atoms too and has to be told.
    """
    one = app.Topology()
    peptide = one.addResidue("ALAD", one.addChain())
    solvent = one.addChain()
    atoms = {}
    for residue in topology.residues():
        first = next(residue.atoms())
        target = peptide if first.index in PEPTIDE else one.addResidue(residue.name, solvent)
        for atom in residue.atoms():
            atoms[atom] = one.addAtom(atom.name, atom.element, target)
    for bond in topology.bonds():
        one.addBond(atoms[bond.atom1], atoms[bond.atom2])
    one.setPeriodicBoxVectors(topology.getPeriodicBoxVectors())
    return one, {peptide: "ALAD"}


def equilibrate() -> None:
    """Relax each variant for 10 ps at 300 K and 1 bar, and write the coordinates; takes ten minutes."""
    (inpcrd_path,) = package_data.find(EXPLICIT_INPCRD)
    inpcrd = app.AmberInpcrdFile(str(inpcrd_path))
    start = Coordinates(
        inpcrd.getPositions(asNumpy=True).value_in_unit(unit.nanometer),
        np.array(inpcrd.getBoxVectors().value_in_unit(unit.nanometer)),
    )
    peptide = start.positions[: len(PEPTIDE)] - start.positions[: len(PEPTIDE)].mean(axis=0)
    side = 2.7
    for force_field, solvent in SOLVENTS.items():
        if force_field == "amber96":
            placed = start
        else:
            box = np.eye(3) * side
            placed = solution.place_solvent(peptide + side / 2, box, solvent, np.random.default_rng(2024))
        # CHARMM's tabulated Lennard-Jones terms take 0.25 s a step on a CPU, so Amber does most of its way.
        guide = "amber96" if force_field == "charmm36" else force_field
        final = equilibration.equilibrate(
            _assemble(guide, solvent, placed, DEFAULT),
            duration=10 * unit.picosecond,
            time_step=2 * unit.femtosecond,
        )
        if guide != force_field:
            final = equilibration.equilibrate(
                _assemble(force_field, solvent, final, DEFAULT),
                duration=0.1 * unit.picosecond,
                time_step=2 * unit.femtosecond,
                first_steps=50,
            )
        molecules = solution.solvent_molecules(solvent, len(PEPTIDE))
        save_coordinates(_coordinates_file(force_field), wrap_molecules(final, molecules, len(PEPTIDE)))


def write_reference() -> None:
    """Measure the built systems and write ``reference.json``."""
    structures = {}
    settings = {}
    for force_field in SOLVENTS:
        for vacuum in (False, True):
            name = f"{force_field}_vacuum" if vacuum else force_field
            structures[name] = build(force_field=force_field, vacuum=vacuum)
            settings[name] = f"build(force_field={force_field!r}, vacuum={vacuum})"
    reference.write_reference(FOLDER / "reference.json", structures, settings)
