"""Missing heavy atoms and modified residues, by PDBFixer. The only module that imports it."""

from __future__ import annotations

import contextlib
import io
import random
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType

import numpy as np
import openmm
from openmm import app, unit

from qmmlmm.errors import MissingDependencyError, PreparationError, listed
from qmmlmm.preparation.caps import place_caps
from qmmlmm.preparation.ligand import INSTALL
from qmmlmm.preparation.protonation import residue_label
from qmmlmm.preparation.residue_names import CAPS, STATE_NAMES
from qmmlmm.preparation.structure_file import ResidueRecord
from qmmlmm.units import FloatArray

Segment = tuple[ResidueRecord, ...]
"""Residues of one chain, each bonded to the next."""

Plan = dict[tuple[int, int], list[str]]
"""Names of residues that are put in, by the index of a chain and that of the residue before which they come."""

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
PACKAGES = ("pdbfixer",)
CARBOXYLATE = 0.125
"""nm; length of the bonds C-O of a carboxylate."""


@dataclass(frozen=True)
class RepairedProtein:
    """A protein with all heavy atoms and no hydrogens.

    Parameters
    ----------
    topology : openmm.app.Topology
        Chains and numbers are those of the structure file.
    positions : (n_atoms, 3) float array, nm
    added : tuple of (str, tuple of str)
        Residues that lacked atoms, and the atoms that were added.
    replaced : tuple of (str, str)
        Modified residues and what they became.
    ends : tuple of (str, tuple of str)
        Residues that the sequence has at the ends of a chain and the structure lacks; they are not built.
    built : tuple of (str, tuple of str)
        Residues that were built or put on as caps, and the residue before them.
    new_atoms : frozenset of (str, str)
        Label of the residue and name of each atom that the file lacks.
    """

    topology: app.Topology
    positions: FloatArray
    added: tuple[tuple[str, tuple[str, ...]], ...]
    replaced: tuple[tuple[str, str], ...]
    ends: tuple[tuple[str, tuple[str, ...]], ...]
    built: tuple[tuple[str, tuple[str, ...]], ...]
    new_atoms: frozenset[tuple[str, str]]


def parent_residue(name: str) -> str | None:
    """Return the amino acid that a modified one is made of, such as MET for MSE, or None."""
    found = _pdbfixer().pdbfixer.substitutions.get(name)
    return None if found is None else str(found)


def repair(segments: Sequence[Segment], sequences: Sequence[str], missing: str, seed: int) -> RepairedProtein:
    """Return the protein with missing heavy atoms added and modified residues replaced.

    Parameters
    ----------
    segments : sequence of tuple of ResidueRecord
        Without alternate locations.
    sequences : sequence of str
        Lines SEQRES; needed for ``missing="build"``.
    missing : {"refuse", "cap", "build"}
        What to do between two segments of one chain.
    seed : int

    Raises
    ------
    PreparationError
        If PDBFixer fails.
    MissingDependencyError
        If it is not installed.
    """
    module = _pdbfixer()
    chains = _joined(segments) if missing == "build" else [tuple(segment) for segment in segments]
    if len(chains) > len(_LETTERS):
        raise PreparationError(f"the structure has {len(chains)} chains, and at most {len(_LETTERS)} are prepared")
    names = [chain[0].key.chain for chain in chains]
    # PDBFixer finds the sequence of a chain by its letter.
    letters = names if all(len(name) == 1 for name in names) else list(_LETTERS[: len(names)])
    text = _pdb_text(chains, letters, sequences if letters is names else ())
    with warnings.catch_warnings(), seeded(seed), deterministic_platform() as platform:
        warnings.simplefilter("ignore")
        try:
            fixer = module.PDBFixer(pdbfile=io.StringIO(text), platform=platform)
            if len(list(fixer.topology.chains())) != len(chains):
                raise PreparationError("PDBFixer reads other chains than the file has; its atoms are not in order")
            ends, built, plan = _plan_residues(fixer, chains, missing, names)
            fixer.findNonstandardResidues()
            replaced = [(_label(names, residue), str(to)) for residue, to in fixer.nonstandardResidues]
            fixer.replaceNonstandardResidues()
            fixer.findMissingAtoms()
            added = [
                (_label(names, residue), tuple(a.name for a in atoms)) for residue, atoms in fixer.missingAtoms.items()
            ]
            added += [(_label(names, residue), tuple(atoms)) for residue, atoms in fixer.missingTerminals.items()]
            fixer.addMissingAtoms(seed=seed)
        # OpenMM and PDBFixer raise plain exceptions, of several classes.
        except (
            ValueError,
            KeyError,
            IndexError,
            TypeError,
            AttributeError,
            AssertionError,
            openmm.OpenMMException,
        ) as error:
            if isinstance(error, PreparationError):
                raise
            raise PreparationError(
                f"PDBFixer could not complete the protein ({type(error).__name__}: {error}); is a residue badly broken?"
            ) from error
    topology = canonical(fixer.topology, names)
    _number_caps(topology)
    positions = np.array(fixer.positions.value_in_unit(unit.nanometer), dtype=float)
    _place_terminal_oxygens(topology, positions)
    new = _new_residues(topology, plan)
    place_caps(topology, positions, [residue for residue in new if residue.name in CAPS])
    new_atoms = {(label.split(" ", 1)[1], name) for label, atoms in added for name in atoms}
    new_atoms |= {(residue_label(residue), atom.name) for residue in new for atom in residue.atoms()}
    return RepairedProtein(
        topology,
        positions,
        tuple(sorted(added)),
        tuple(replaced),
        tuple(ends),
        tuple(built),
        frozenset(new_atoms),
    )


def _new_residues(topology: app.Topology, plan: Plan) -> list[app.topology.Residue]:
    """Return the residues that PDBFixer put in before the places of a plan, which count those of the file."""
    found = []
    for index, chain in enumerate(topology.chains()):
        residues, more = list(chain.residues()), 0
        for place, names in sorted((place, names) for (number, place), names in plan.items() if number == index):
            found += residues[place + more : place + more + len(names)]
            more += len(names)
    return found


def _number_caps(topology: app.Topology) -> None:
    """Give each cap the number of its neighbour with a free insertion code: PDBFixer's may be that of a residue."""
    used = {(r.chain.id, r.id, r.insertionCode.strip()) for r in topology.residues() if r.name not in CAPS}
    for chain in topology.chains():
        residues = list(chain.residues())
        for place, cap in enumerate(residues):
            neighbour = place - 1 if cap.name == "NME" else place + 1
            if cap.name not in CAPS or not 0 <= neighbour < len(residues):
                continue
            number = residues[neighbour].id
            code = next(letter for letter in reversed(_LETTERS[:26]) if (chain.id, number, letter) not in used)
            used.add((chain.id, number, code))
            cap.id, cap.insertionCode = number, code


def _place_terminal_oxygens(topology: app.Topology, positions: FloatArray) -> None:
    """Put each OXT into the plane of CA, C and O: PDBFixer's may stand next to CA (4W51, residue 164)."""
    for residue in topology.residues():
        named = {atom.name: atom.index for atom in residue.atoms()}
        if {"OXT", "CA", "C", "O"} <= set(named):
            carbon = positions[named["C"]]
            arms = [positions[named[name]] - carbon for name in ("CA", "O")]
            away = -sum(arm / np.linalg.norm(arm) for arm in arms)
            positions[named["OXT"]] = carbon + CARBOXYLATE * away / np.linalg.norm(away)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed Python's random numbers, which OpenMM's Modeller uses, and put their state back."""
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)


@contextlib.contextmanager
def deterministic_platform() -> Iterator[openmm.Platform]:
    """Give the CPU platform, whose results are meanwhile the same bit by bit for a number of threads."""
    platform = openmm.Platform.getPlatformByName("CPU")
    before = platform.getPropertyDefaultValue("DeterministicForces")
    platform.setPropertyDefaultValue("DeterministicForces", "true")
    try:
        yield platform
    finally:
        platform.setPropertyDefaultValue("DeterministicForces", before)


def canonical(topology: app.Topology, chain_names: Sequence[str] | None = None) -> app.Topology:
    """Return a copy whose bonds are in the order of their atoms; PDBFixer's depends on addresses in memory."""
    copy = app.Topology()
    if topology.getPeriodicBoxVectors() is not None:
        copy.setPeriodicBoxVectors(topology.getPeriodicBoxVectors())
    atoms = []
    for index, chain in enumerate(topology.chains()):
        new_chain = copy.addChain(chain.id if chain_names is None else chain_names[index])
        for residue in chain.residues():
            new_residue = copy.addResidue(residue.name, new_chain, residue.id, residue.insertionCode)
            atoms += [copy.addAtom(atom.name, atom.element, new_residue) for atom in residue.atoms()]
    bonds = {tuple(sorted((first.index, second.index))) for first, second in topology.bonds()}
    for low, high in sorted(bonds):
        copy.addBond(atoms[low], atoms[high])
    return copy


def _plan_residues(
    fixer: object, chains: Sequence[Segment], missing: str, names: Sequence[str]
) -> tuple[list[tuple[str, tuple[str, ...]]], list[tuple[str, tuple[str, ...]]], Plan]:
    """Tell PDBFixer which residues to add; return those at ends, which are not added, those that are, and the plan."""
    # PDBFixer has no types.
    fixer.findMissingResidues()  # type: ignore[attr-defined]
    found: dict[tuple[int, int], list[str]] = dict(fixer.missingResidues)  # type: ignore[attr-defined]
    lengths = [len(chain) for chain in chains]
    plan: Plan = {}
    ends, built = [], []
    for (chain, place), residues in sorted(found.items()):
        if place in (0, lengths[chain]):
            end = "before " if place == 0 else "behind "
            ends.append((end + chains[chain][max(place - 1, 0)].label, tuple(residues)))
        elif missing == "build":
            plan[chain, place] = residues
            built.append((chains[chain][place - 1].label, tuple(residues)))
    if missing == "cap":
        for index in range(len(chains) - 1):
            # A new chain of another name is no gap; one that begins again at a lower number is none either.
            if names[index] == names[index + 1] and chains[index][-1].key.number < chains[index + 1][0].key.number:
                for chain, place, cap in ((index, lengths[index], "NME"), (index + 1, 0, "ACE")):
                    plan[chain, place] = [cap]
                    built.append((chains[chain][max(place - 1, 0)].label, (cap,)))
    fixer.missingResidues = plan  # type: ignore[attr-defined]
    return ends, built, plan


def _joined(segments: Sequence[Segment]) -> list[Segment]:
    """Return segments of one chain, whose numbers go on, as one."""
    joined: list[Segment] = []
    for segment in segments:
        last = joined[-1][-1].key if joined else None
        if last is not None and last.chain == segment[0].key.chain and last.number < segment[0].key.number:
            joined[-1] += tuple(segment)
        else:
            joined.append(tuple(segment))
    return joined


def _pdb_text(chains: Sequence[Segment], letters: Sequence[str], sequences: Sequence[str]) -> str:
    lines = list(sequences)
    serial = 0
    for letter, chain in zip(letters, chains, strict=True):
        for residue in chain:
            name = STATE_NAMES.get(residue.name, residue.name)
            if not -999 <= residue.key.number <= 9999:
                raise PreparationError(
                    f"{residue.label}: a number of a residue is from -999 to 9999; renumber the chain"
                )
            for atom in residue.heavy:
                serial += 1
                x, y, z = atom.position
                four = atom.name if len(atom.name) >= 4 or len(atom.element) == 2 else f" {atom.name}"
                insertion = residue.key.insertion or " "
                kind = "ATOM  " if name not in CAPS else "HETATM"
                lines.append(
                    f"{kind}{serial % 100000:5d} {four:<4.4s} {name:>3.3s} "
                    f"{letter}{residue.key.number:4d}{insertion:1.1s}   "
                    f"{x:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00          {atom.element.upper():>2s}"
                )
        lines.append("TER")
    return "\n".join([*lines, "END", ""])


def _label(names: Sequence[str], residue: app.topology.Residue) -> str:
    return f"{residue.name} {names[residue.chain.index]}:{residue.id}{residue.insertionCode.strip()}"


def _pdbfixer() -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import pdbfixer
            import pdbfixer.pdbfixer
        except ImportError as error:
            raise MissingDependencyError(
                f"proteins are completed by PDBFixer, which cannot be imported ({error}); {INSTALL}"
            ) from error
    return pdbfixer


def named(items: Sequence[tuple[str, tuple[str, ...]]]) -> str:
    """Return residues with what they lack as text."""
    return listed((f"{label} ({' '.join(names)})" for label, names in items), 20)
