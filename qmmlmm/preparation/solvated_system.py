"""From a model without hydrogens to a solvated System: hydrogens, box, ions, force field, minimisation."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import openmm
from openmm import app, unit

from qmmlmm.errors import PreparationError, listed
from qmmlmm.mm.electrostatics import force_field_charges
from qmmlmm.preparation.inspection import Model
from qmmlmm.preparation.ligand import Ligand
from qmmlmm.preparation.protonation import residue_label
from qmmlmm.preparation.repair import canonical, deterministic_platform, seeded
from qmmlmm.preparation.settings import PreparationSettings
from qmmlmm.units import FloatArray

PROTEIN_FILES = {"amber14": "amber14/protein.ff14SB.xml", "amber19": "amber19/protein.ff19SB.xml"}
WATER_FILES = {
    ("amber14", "tip3p"): "amber14/tip3p.xml",
    ("amber14", "opc"): "amber14/opc.xml",
    ("amber19", "tip3p"): "amber19/tip3p.xml",
    ("amber19", "opc"): "amber19/opc.xml",
}
SOLVENT_BOXES = {"tip3p": "tip3p", "opc": "tip4pew"}
"""Boxes of water of OpenMM with the sites of each model."""

RESTRAINT = 1000.0
"""kJ/(mol nm^2); force constant of solute atoms in the first stage of minimisation."""
LONGEST_BOND = 0.25
"""nm; a longer bond after minimisation is a broken structure."""
LARGEST_MOVE = 0.15
"""nm; a ligand whose heavy atoms move farther on the average did not fit."""
INTEGER = 1e-3
"""e; largest difference of a total charge from an integer."""


@dataclass(frozen=True)
class SolvatedSystem:
    """A System in its box.

    Parameters
    ----------
    topology : openmm.app.Topology
    system : openmm.System
    state : openmm.State
        Minimised positions and the box.
    states : mapping of str to str
        State of each titratable residue, by label.
    counts : mapping of str to int
        Waters and ions that were added.
    charges : mapping of str to float
        Charge of protein, ligands and the whole, e.
    energies : mapping of str to float
        Potential energy before and after minimisation, kJ/mol.
    checks : mapping of str to str
        What was checked, and the number.
    """

    topology: app.Topology
    system: openmm.System
    state: openmm.State
    states: Mapping[str, str]
    counts: Mapping[str, int]
    charges: Mapping[str, float]
    energies: Mapping[str, float]
    checks: Mapping[str, str]

    @property
    def positions(self) -> FloatArray:
        """Positions, nm."""
        return np.array(self.state.getPositions(asNumpy=True).value_in_unit(unit.nanometer))


def force_field(settings: PreparationSettings, ligand_xml: Sequence[str], water: str | None = None) -> app.ForceField:
    """Return protein, water and ligands in one ForceField.

    Raises
    ------
    PreparationError
        If OpenMM cannot read the force field of a ligand, or it does not go with that of the protein.
    """
    model = water or settings.water
    files = [PROTEIN_FILES[settings.force_field], WATER_FILES[settings.force_field, str(model)]]
    try:
        return app.ForceField(*files, *(io.StringIO(text) for text in ligand_xml))
    # OpenMM raises ValueError, KeyError and plain Exception here.
    except Exception as error:
        raise PreparationError(f"OpenMM cannot read the force field of a ligand: {error}") from error


def solvate(
    model: Model,
    states: Mapping[str, str],
    ligands: Sequence[Ligand],
    ligand_xml: Mapping[str, str],
    settings: PreparationSettings,
) -> SolvatedSystem:
    """Return the model with hydrogens, water and ions in a box.

    Parameters
    ----------
    model : Model
    states : mapping of str to str
        State of each titratable residue; histidines without one take HID or HIE by their hydrogen bonds.
    ligands : sequence of Ligand
    ligand_xml : mapping of str to str
        Force field XML of each ligand, by name.
    settings : PreparationSettings

    Raises
    ------
    PreparationError
        If a residue has no template, the charge is no integer, or the minimised structure is broken.
    """
    texts = list(dict.fromkeys(ligand_xml.values()))
    field = force_field(settings, texts)
    # Hydrogens are built with three-site water: crystal waters have no extra sites yet.
    dry = field if settings.water == "tip3p" else force_field(settings, texts, "tip3p")
    modeller = app.Modeller(model.topology, model.positions * unit.nanometer)
    variants = [states.get(residue_label(residue)) for residue in modeller.topology.residues()]
    variants = ["CYX" if variant == "CYM" else variant for variant in variants]
    n_solute_chains = len(list(modeller.topology.chains()))
    with warnings.catch_warnings(), seeded(settings.seed), deterministic_platform() as platform:
        warnings.simplefilter("ignore")
        try:
            # Neutral histidines are chosen by hydrogen bonds at this pH; all others have their variants.
            actual = modeller.addHydrogens(
                dry, pH=7.0, variants=variants, platform=platform, residueTemplates=_templates(modeller, ligands)
            )
            if settings.water == "opc":
                modeller.addExtraParticles(field, residueTemplates=_templates(modeller, ligands))
            _check_charges(field, modeller, ligands)
            modeller.addSolvent(
                field,
                model=SOLVENT_BOXES[str(settings.water)],
                padding=settings.padding * unit.nanometer,
                boxShape=settings.box,
                ionicStrength=settings.salt * unit.molar,
                residueTemplates=_templates(modeller, ligands),
            )
        except (ValueError, KeyError, IndexError, openmm.OpenMMException) as error:
            if isinstance(error, PreparationError):
                raise
            raise PreparationError(_explained(error, states)) from error
        topology = _with_labels(canonical(modeller.topology), n_solute_chains)
        positions = np.array(modeller.positions.value_in_unit(unit.nanometer), dtype=float)
        system = _create_system(field, topology, ligands, settings)
        chosen = {
            residue_label(residue): ("CYM" if states.get(residue_label(residue)) == "CYM" else str(variant))
            for residue, variant in zip(topology.residues(), actual, strict=False)
            if isinstance(variant, str)
        }
        state, energies = _minimise(topology, system, positions, model.built, settings, platform)
    final = np.array(state.getPositions(asNumpy=True).value_in_unit(unit.nanometer))
    checks = check_structure(topology, positions, final, ligands)
    counts = _counts(topology, n_solute_chains)
    return SolvatedSystem(
        topology, system, state, chosen, counts, _charges(topology, system, ligands), energies, checks
    )


def _templates(modeller: app.Modeller, ligands: Sequence[Ligand]) -> dict[object, str]:
    """Return the template of each ligand: two ligands with equal graphs have templates that both match."""
    names = {ligand.name for ligand in ligands}
    return {residue: residue.name for residue in modeller.topology.residues() if residue.name in names}


def _create_system(
    field: app.ForceField, topology: app.Topology, ligands: Sequence[Ligand], settings: PreparationSettings
) -> openmm.System:
    names = {ligand.name for ligand in ligands}
    mass = None if settings.hydrogen_mass is None else settings.hydrogen_mass * unit.dalton
    return field.createSystem(
        topology,
        nonbondedMethod=app.PME,
        nonbondedCutoff=settings.cutoff * unit.nanometer,
        constraints=app.HBonds,
        hydrogenMass=mass,
        residueTemplates={residue: residue.name for residue in topology.residues() if residue.name in names},
    )


def _check_charges(field: app.ForceField, modeller: app.Modeller, ligands: Sequence[Ligand]) -> None:
    """Raise if the solute has a fractional charge: Modeller would round it in silence when it adds ions."""
    system = field.createSystem(modeller.topology, residueTemplates=_templates(modeller, ligands))
    total = float(force_field_charges(system).sum())
    if abs(total - round(total)) > INTEGER:
        raise PreparationError(
            f"protein and ligands have the charge {total:+.3f} in the force field, which is no integer; charges of a "
            "ligand of your own do not add up"
        )


def _explained(error: Exception, states: Mapping[str, str]) -> str:
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    if "No template found" not in text:
        return f"OpenMM could not build the System ({type(error).__name__}: {text})"
    special = [f"{label} {state}" for label, state in states.items() if state in ("ASH", "GLH", "LYN", "CYM")]
    return (
        f"the force field has no template for a residue ({text}). Its atoms, its bonds or its state are not those of "
        "the force "
        f"field; states that were chosen are {listed(special, 10) or 'the usual ones'}; a ligand of your own has all "
        "hydrogens?"
    )


def _with_labels(topology: app.Topology, n_solute_chains: int) -> app.Topology:
    """Name the chains of added water and number their residues."""
    used: set[str] = set()
    for index, chain in enumerate(topology.chains()):
        if index < n_solute_chains:
            used.add(chain.id)
            continue
        chain.id = next(letter for letter in "SYXZ0123456789" if letter not in used)
        used.add(chain.id)
        for number, residue in enumerate(chain.residues(), start=1):
            residue.id = str(number)
    return topology


def _minimise(
    topology: app.Topology,
    system: openmm.System,
    positions: FloatArray,
    built: frozenset[tuple[str, str]],
    settings: PreparationSettings,
    platform: openmm.Platform,
) -> tuple[openmm.State, dict[str, float]]:
    """Relax water, hydrogens and atoms that were built with the rest of the solute held, then everything."""
    held = openmm.CustomExternalForce("0.5*k*periodicdistance(x, y, z, x0, y0, z0)^2")
    held.addGlobalParameter("k", RESTRAINT)
    for name in ("x0", "y0", "z0"):
        held.addPerParticleParameter(name)
    solvent = {"HOH", "NA", "CL"}
    for atom in topology.atoms():
        heavy = atom.element is not None and atom.element.symbol != "H"
        if heavy and atom.residue.name not in solvent and (residue_label(atom.residue), atom.name) not in built:
            held.addParticle(atom.index, positions[atom.index])
    copy = openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(system))
    copy.addForce(held)
    context = openmm.Context(copy, openmm.VerletIntegrator(0.001), platform)
    context.setPositions(positions)
    context.computeVirtualSites()

    def energy() -> float:
        found = context.getState(energy=True).getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
        if not math.isfinite(found):
            raise PreparationError(
                "the energy of the built System is not finite: atoms overlap; look at the ligand's pose"
            )
        return float(found)

    context.applyConstraints(1e-6)
    energies = {"built": energy()}
    if settings.minimise:
        for stage, constant in (("solute held", RESTRAINT), ("free", 0.0)):
            context.setParameter("k", constant)
            openmm.LocalEnergyMinimizer.minimize(context, 10.0, settings.minimise)
            energies[stage] = energy()
    # A State of the System itself, without the parameter of the restraint.
    plain = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
    plain.setPeriodicBoxVectors(*context.getState().getPeriodicBoxVectors())
    plain.setPositions(context.getState(positions=True).getPositions(asNumpy=True))
    return plain.getState(positions=True, enforcePeriodicBox=False), energies


def check_structure(
    topology: app.Topology, before: FloatArray, after: FloatArray, ligands: Sequence[Ligand]
) -> dict[str, str]:
    """Return what was checked after minimisation.

    Raises
    ------
    PreparationError
        If a bond is too long, a chirality or a cis peptide changed, or a ligand left its place.
    """
    if not np.isfinite(after).all():
        raise PreparationError("positions are not finite after minimisation: atoms overlap; look at the ligand's pose")
    bonds = np.array([(a.index, b.index) for a, b in topology.bonds()])
    lengths = np.linalg.norm(after[bonds[:, 0]] - after[bonds[:, 1]], axis=1)
    atoms = list(topology.atoms())
    if lengths.max() > LONGEST_BOND:
        a, b = (atoms[k] for k in bonds[lengths.argmax()])
        raise PreparationError(
            f"the bond {a.residue.name} {residue_label(a.residue)} {a.name} - {b.residue.name} "
            f"{residue_label(b.residue)} "
            f"{b.name} is {10 * lengths.max():.2f} angstrom long after minimisation; the structure is broken there"
        )
    chiral = _mirrored(topology, before) ^ _mirrored(topology, after)
    if chiral:
        raise PreparationError(
            f"minimisation changed the chirality of {listed(sorted(chiral))}; the structure is broken there"
        )
    cis = _cis(topology, before) ^ _cis(topology, after)
    if cis:
        raise PreparationError(
            f"minimisation turned a peptide bond between cis and trans, before {listed(sorted(cis))}"
        )
    checks = {
        "longest bond": f"{10 * lengths.max():.2f} angstrom",
        "cis peptides": listed(sorted(_cis(topology, after))) or "none",
    }
    names = {ligand.name for ligand in ligands}
    protein = [a.index for a in atoms if a.name == "CA" and a.residue.name not in names]
    for residue in topology.residues():
        if residue.name in names:
            heavy = [a.index for a in residue.atoms() if a.element is not None and a.element.symbol != "H"]
            move = _moved(before, after, heavy, protein)
            if move > LARGEST_MOVE:
                raise PreparationError(
                    f"{residue.name} {residue_label(residue)} moved by {10 * move:.1f} angstrom in the minimisation: "
                    "its pose does not fit; dock it again"
                )
            checks[f"{residue.name} {residue_label(residue)} moved"] = f"{10 * move:.2f} angstrom"
    return checks


def _moved(before: FloatArray, after: FloatArray, atoms: Sequence[int], protein: Sequence[int]) -> float:
    """Return the root mean square displacement of atoms, nm, without the mean displacement of the protein."""
    drift = (after[list(protein)] - before[list(protein)]).mean(axis=0) if protein else np.zeros(3)
    return float(np.sqrt(((after[list(atoms)] - before[list(atoms)] - drift) ** 2).sum(axis=1).mean()))


def _mirrored(topology: app.Topology, positions: FloatArray) -> set[str]:
    """Return the labels of residues whose CA has the hand of a D-amino acid."""
    found = set()
    for residue in topology.residues():
        named = {atom.name: positions[atom.index] for atom in residue.atoms() if atom.name in ("N", "CA", "C", "CB")}
        if len(named) == 4:
            n, ca, c, cb = (named[name] for name in ("N", "CA", "C", "CB"))
            if np.dot(np.cross(n - ca, c - ca), cb - ca) < 0.0:
                found.add(f"{residue.name} {residue_label(residue)}")
    return found


def _cis(topology: app.Topology, positions: FloatArray) -> set[str]:
    """Return the labels of residues behind a cis peptide bond."""
    found = set()
    for first, second in topology.bonds():
        carbon, nitrogen = (first, second) if first.name == "C" else (second, first)
        if carbon.name != "C" or nitrogen.name != "N" or carbon.residue == nitrogen.residue:
            continue
        ca = {atom.name: atom.index for atom in carbon.residue.atoms()}.get("CA")
        next_ca = {atom.name: atom.index for atom in nitrogen.residue.atoms()}.get("CA")
        if ca is None or next_ca is None:
            continue
        if np.linalg.norm(positions[ca] - positions[next_ca]) < 0.33:
            found.add(f"{nitrogen.residue.name} {residue_label(nitrogen.residue)}")
    return found


def _counts(topology: app.Topology, n_solute_chains: int) -> dict[str, int]:
    counts: dict[str, int] = {}
    for index, chain in enumerate(topology.chains()):
        if index >= n_solute_chains:
            for residue in chain.residues():
                counts[residue.name] = counts.get(residue.name, 0) + 1
    return dict(sorted(counts.items()))


def _charges(topology: app.Topology, system: openmm.System, ligands: Sequence[Ligand]) -> dict[str, float]:
    charges = force_field_charges(system)
    total = float(charges.sum())
    if abs(total) > INTEGER:
        raise PreparationError(f"the System has the charge {total:+.4f} after ions were added")
    names = {ligand.name for ligand in ligands}
    found = {"all": total}
    for residue in topology.residues():
        part = float(charges[[atom.index for atom in residue.atoms()]].sum())
        key = (
            f"{residue.name} {residue_label(residue)}" if residue.name in names else "protein, crystal waters and ions"
        )
        if residue.chain.id in ("S", "Y") and residue.name in ("HOH", "NA", "CL"):
            key = "added waters and ions"
        found[key] = found.get(key, 0.0) + part
    return {key: round(value, 6) + 0.0 for key, value in found.items()}
