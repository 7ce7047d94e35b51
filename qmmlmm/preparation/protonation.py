"""States of titratable residues: pKa values by PROPKA with the ligands present. The only module that imports it."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

from openmm import app, unit

from qmmlmm.errors import MissingDependencyError, PreparationError
from qmmlmm.preparation.findings import Findings
from qmmlmm.preparation.ligand import INSTALL
from qmmlmm.preparation.settings import STATES
from qmmlmm.units import FloatArray

PACKAGES = ("propka",)
NEAR = 1.0
"""Distance of a pKa from the pH, below which a state is uncertain: PROPKA's error is of this size."""

_RESIDUES = {"ASP", "GLU", "HIS", "LYS", "CYS", "TYR", "ARG"}
_CHARGED_ABOVE = {"ASP", "GLU", "CYS", "TYR", "C-"}
"""Groups that lose their proton to become charged."""


@dataclass(frozen=True)
class PkaValue:
    """pKa of one group.

    Parameters
    ----------
    residue : str
        Label such as ``A:25``.
    name : str
        Name of the residue.
    group : str
        Its name again, or ``"N+"`` or ``"C-"`` for the ends of a chain.
    value : float
    """

    residue: str
    name: str
    group: str
    value: float


def residue_label(residue: app.topology.Residue) -> str:
    """Return the label of a residue, such as ``A:25``."""
    return f"{residue.chain.id}:{residue.id}{residue.insertionCode.strip()}"


def pka_values(topology: app.Topology, positions: FloatArray) -> tuple[PkaValue, ...]:
    """Return the pKa values of protein residues and ends of chains.

    Parameters
    ----------
    topology : openmm.app.Topology
        Protein without hydrogens, ligands with hydrogens, ions.
    positions : (n_atoms, 3) float array, nm

    Raises
    ------
    PreparationError
        If PROPKA fails.
    MissingDependencyError
        If it is not installed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import propka.run
        except ImportError as error:
            raise MissingDependencyError(
                f"pKa values are estimated by PROPKA, which cannot be imported ({error}); {INSTALL}"
            ) from error
        logger = logging.getLogger("propka")
        level, logger_level = logger.level, logging.CRITICAL
        text = io.StringIO()
        letters = _one_letter_chains(topology)
        app.PDBFile.writeFile(letters[0], positions * unit.nanometer, text, keepIds=True)
        text.seek(0)
        logger.setLevel(logger_level)
        try:
            molecule = propka.run.single("structure.pdb", optargs=["--quiet"], stream=text, write_pka=False)
        # PROPKA raises exceptions of many classes.
        except Exception as error:
            raise PreparationError(f"PROPKA could not estimate pKa values ({type(error).__name__}: {error})") from error
        finally:
            logger.setLevel(level)
    found = []
    for group in molecule.conformations["AVR"].groups:
        if group.residue_type not in _RESIDUES | {"N+", "C-"}:
            continue
        atom = group.atom
        label = f"{letters[1].get(atom.chain_id, atom.chain_id)}:{atom.res_num}{atom.icode.strip()}"
        found.append(PkaValue(label, str(atom.res_name), str(group.residue_type), float(group.pka_value)))
    return tuple(found)


def _one_letter_chains(topology: app.Topology) -> tuple[app.Topology, dict[str, str]]:
    """Return the Topology with chains of one letter, and the names of its chains by letter."""
    names = list(dict.fromkeys(chain.id for chain in topology.chains()))
    if all(len(name) == 1 for name in names):
        return topology, {}
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
    letter = dict(zip(names, alphabet, strict=False))
    copy = app.Topology()
    for chain in topology.chains():
        new_chain = copy.addChain(letter.get(chain.id, "A"))
        for residue in chain.residues():
            new_residue = copy.addResidue(residue.name, new_chain, residue.id, residue.insertionCode)
            for atom in residue.atoms():
                copy.addAtom(atom.name, atom.element, new_residue)
    return copy, {value: key for key, value in letter.items()}


def choose_states(
    topology: app.Topology,
    values: tuple[PkaValue, ...],
    *,
    ph: float,
    given: Mapping[str, str],
    read: Mapping[str, str],
    metal: Mapping[str, str],
    findings: Findings,
) -> dict[str, str]:
    """Return the state of each titratable residue by label; a neutral histidine without a preference is left out.

    Parameters
    ----------
    topology : openmm.app.Topology
        Protein.
    values : tuple of PkaValue
    ph : float
    given : mapping of str to str
        States by hand. They win.
    read : mapping of str to str
        States that names or hydrogens in the file show.
    metal : mapping of str to str
        States of residues that bind a metal ion.
    findings : Findings
    """
    bridged = bridged_cysteines(topology)
    residues = {residue_label(residue): residue for residue in topology.residues()}
    for label in sorted(set(given) - set(residues)):
        findings.refuse("state", f"{label} was given a state, and the protein has no such residue")
    pka = {value.residue: value.value for value in values if value.group == value.name}
    states: dict[str, str] = {}
    for label, residue in residues.items():
        if residue.name not in STATES:
            if label in given:
                findings.refuse(
                    "state", f"{residue.name} {label} has one state in the force fields, not {given[label]}"
                )
            continue
        if label in bridged:
            states[label] = "CYX"
            if given.get(label, "CYX") != "CYX":
                findings.refuse("state", f"CYS {label} is in a disulfide bridge and cannot be {given[label]}")
            continue
        expected = _expected(residue.name, pka.get(label), ph)
        state = _state(label, residue.name, expected, given, read, metal, findings)
        if state is not None:
            states[label] = state
        _report(label, residue.name, pka.get(label), ph, state, given, findings)
        _check_terminus(label, residue, state, findings)
    _report_ends(values, ph, findings)
    return states


def _expected(name: str, pka: float | None, ph: float) -> str | None:
    """Return the state that a pKa means; None for a neutral histidine."""
    protonated = pka is not None and pka > ph
    return {
        "ASP": "ASH" if protonated else "ASP",
        "GLU": "GLH" if protonated else "GLU",
        "HIS": "HIP" if protonated else None,
        "LYS": "LYS" if protonated or pka is None else "LYN",
        "CYS": "CYS" if protonated or pka is None else "CYM",
    }[name]


def _state(
    label: str,
    name: str,
    expected: str | None,
    given: Mapping[str, str],
    read: Mapping[str, str],
    metal: Mapping[str, str],
    findings: Findings,
) -> str | None:
    if label in given:
        state = given[label]
        if state not in STATES[name] or state == "CYX":
            findings.refuse("state", f"{name} {label} cannot be {state}: it is {' or '.join(STATES[name][:3])}")
            return expected
        if label in read and read[label] != state:
            findings.refuse(
                "state",
                f"{name} {label} was given the state {state}, and the file shows {read[label]} by its hydrogens or its "
                "name; correct one of them, or take the file's as not meant: --hydrogens ignore",
            )
        return state
    if label in metal:
        findings.decide("state", f"{name} {label} binds a metal ion: {metal[label]} is taken")
        return metal[label]
    if label in read:
        neutral = read[label] in ("HID", "HIE") and expected is None
        if read[label] != expected and not neutral:
            findings.decide(
                "state",
                f"{name} {label} is {read[label]} by its hydrogens or its name in the file, which is taken; the "
                f"estimated pKa means {expected or 'HID or HIE'}",
            )
        return read[label]
    return expected


def _report(
    label: str, name: str, pka: float | None, ph: float, state: str | None, given: Mapping[str, str], findings: Findings
) -> None:
    if pka is None or pka > 90.0:
        return
    shown = state or "neutral (HID or HIE by its hydrogen bonds)"
    if label in given:
        findings.done("state", f"{name} {label} is {shown}, as given (estimated pKa {pka:.1f})")
    elif abs(pka - ph) < NEAR:
        findings.decide(
            "pKa",
            f"{name} {label} has the estimated pKa {pka:.1f}, within {NEAR:g} of pH {ph:g}: {shown} is taken; look at "
            f"its hydrogen bonds and say --state {label}={state or 'HIE'}",
        )
    elif state in ("ASH", "GLH", "HIP", "LYN", "CYM"):
        findings.done("state", f"{name} {label} is {state} (estimated pKa {pka:.1f})")


def _check_terminus(label: str, residue: app.topology.Residue, state: str | None, findings: Findings) -> None:
    if state not in ("ASH", "GLH", "LYN", "CYM"):
        return
    chain = [r for r in residue.chain.residues() if r.name not in ("ACE", "NME")]
    if residue in (chain[0], chain[-1]) and len(list(residue.chain.residues())) == len(chain):
        findings.refuse(
            "state",
            f"{residue.name} {label} would be {state} at the end of a chain, for which the force fields have no "
            f"template; say --state {label}={residue.name}",
        )


def _report_ends(values: tuple[PkaValue, ...], ph: float, findings: Findings) -> None:
    """Report groups whose other state has no template in the force fields."""
    for value in values:
        charged = value.value < ph if value.group in _CHARGED_ABOVE else value.value > ph
        usual = {"N+": True, "C-": True, "TYR": False, "ARG": True}.get(value.group)
        if usual is None or charged == usual or value.value > 90.0:
            continue
        kind = {"N+": "the N terminus", "C-": "the C terminus"}.get(value.group, value.group)
        findings.decide(
            "pKa",
            f"{kind} {value.residue} has the estimated pKa {value.value:.1f}, which means the "
            f"{'neutral' if usual else 'charged'} state; the force fields have no template for it, and the usual one "
            "is taken",
        )


def bridged_cysteines(topology: app.Topology) -> set[str]:
    """Return the labels of cysteines in disulfide bridges."""
    found = set()
    for first, second in topology.bonds():
        if first.name == second.name == "SG":
            found |= {residue_label(first.residue), residue_label(second.residue)}
    return found
