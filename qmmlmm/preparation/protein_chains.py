"""Chains of a protein: where they are broken, closed or incomplete, and the states that a file shows."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from qmmlmm.errors import listed
from qmmlmm.preparation.findings import Findings
from qmmlmm.preparation.repair import Segment
from qmmlmm.preparation.residue_names import CAPS
from qmmlmm.preparation.structure_file import ResidueRecord

PEPTIDE_BOND = 1.6
"""Angstrom; a shorter C-N distance is a peptide bond, even where the file has a TER record."""
LONGEST_PEPTIDE_BOND = 2.0
"""Angstrom; a C-N distance above it is a gap."""
BACKBONE_BOND = (0.9, 2.2)
"""Angstrom; limits of N-CA and CA-C."""
LARGEST_RESIDUE = 14.0
"""Angstrom; no atom of an amino acid is farther from CA."""

_NAMED_STATES = {
    "ASH": "ASH", "GLH": "GLH", "HID": "HID", "HIE": "HIE", "HIP": "HIP", "HSD": "HID", "HSE": "HIE", "HSP": "HIP",
    "LYN": "LYN", "CYM": "CYM",
}  # fmt: skip


def check_backbone(protein: Sequence[ResidueRecord], findings: Findings) -> None:
    """Refuse residues without a backbone, or with atoms far apart."""
    lacking, broken, mirrored = [], [], []
    for residue in protein:
        if residue.name in CAPS:
            continue
        n, ca, c, cb = (residue.position(name) for name in ("N", "CA", "C", "CB"))
        if n is None or ca is None or c is None:
            lacking.append(residue.label)
            continue
        low, high = BACKBONE_BOND
        bonds = (np.linalg.norm(n - ca), np.linalg.norm(c - ca))
        far = max(float(np.linalg.norm(np.array(atom.position) - ca)) for atom in residue.atoms)
        if not all(low < bond < high for bond in bonds) or far > LARGEST_RESIDUE:
            broken.append(residue.label)
        elif cb is not None and np.dot(np.cross(n - ca, c - ca), cb - ca) < 0.0:
            mirrored.append(residue.label)
    if lacking:
        findings.refuse(
            "backbone",
            f"N, CA or C is missing in {listed(lacking)}; delete these residues, or take a structure with all "
            "backbone atoms",
        )
    if broken:
        findings.refuse("backbone", f"atoms of {listed(broken)} are not where a residue has them; the file is damaged")
    if mirrored:
        findings.decide("chirality", f"D-amino acids: {listed(mirrored, 20)}; they are kept as they are")


def segments_of(protein: Sequence[ResidueRecord], findings: Findings) -> list[Segment]:
    """Return runs of residues that peptide bonds connect.

    A TER between residues with a peptide bond is dropped; without a TER, a missing bond ends a segment too.
    """
    segments: list[list[ResidueRecord]] = []
    dropped, stretched = [], []
    for previous, residue in itertools.pairwise([None, *protein]):
        assert residue is not None
        distance = None if previous is None else _bond(previous, residue)
        near = distance is not None and distance < (PEPTIDE_BOND if previous.ends_chain else LONGEST_PEPTIDE_BOND)  # type: ignore[union-attr]
        if previous is not None and previous.key.chain == residue.key.chain and near:
            segments[-1].append(residue)
            if previous.ends_chain:
                dropped.append(f"{previous.label} - {residue.label}")
            if distance is not None and distance > PEPTIDE_BOND:
                stretched.append(f"{previous.label} - {residue.label} ({distance:.2f} angstrom)")
        else:
            segments.append([residue])
    if dropped:
        findings.done("chain breaks", f"TER between residues with a peptide bond is ignored: {listed(dropped, 20)}")
    if stretched:
        findings.decide("chain", f"long peptide bonds: {listed(stretched)}")
    for segment in segments:
        closing = _bond(segment[-1], segment[0])
        if len(segment) > 2 and closing is not None and closing < PEPTIDE_BOND:
            findings.refuse(
                "cyclic peptide",
                f"{segment[-1].label} is bonded to {segment[0].label} ({closing:.2f} angstrom): the chain is a ring, "
                "and would get charged ends on top of its bond; cyclic peptides are not prepared",
            )
    return [tuple(segment) for segment in segments]


def check_gaps(segments: Sequence[Segment], sequences: Sequence[str], missing: str, findings: Findings) -> None:
    """Refuse gaps inside chains unless the settings say what to do."""
    gaps = []
    for first, second in itertools.pairwise(segments):
        last, following = first[-1], second[0]
        if last.key.chain != following.key.chain or last.key.number > following.key.number:
            continue
        if last.name in CAPS or following.name in CAPS:
            continue
        distance = _bond(last, following)
        gaps.append(f"{last.label} - {following.label} ({distance or float('nan'):.1f} angstrom)")
    if not gaps:
        return
    text = f"residues are missing between {listed(gaps)}"
    if missing == "refuse":
        findings.refuse(
            "gap",
            f"{text}; the chain would be bonded across or get charged ends. Take a model with these residues, or cap "
            "the ends (--missing cap), or let PDBFixer build them (--missing build)",
        )
    elif missing == "build" and not sequences:
        findings.refuse("gap", f"{text}, and the file has no sequence (SEQRES) from which they could be built")
    else:
        findings.done("gap", text)


def states_in_file(protein: Sequence[ResidueRecord]) -> dict[str, str]:
    """Return the states that names or hydrogens of a file show, by label."""
    states = {}
    for residue in protein:
        state = _NAMED_STATES.get(residue.name) or _state_of_hydrogens(residue)
        if state is not None:
            states[residue.key.label] = state
    return states


def _state_of_hydrogens(residue: ResidueRecord) -> str | None:
    hydrogens = {atom.name for atom in residue.atoms if atom.element == "H"}
    # Some files have polar hydrogens only; a single one, such as H of the backbone, says nothing of the side chain.
    if len(hydrogens) < 2:
        return None
    if residue.name == "HIS":
        delta, epsilon = bool(hydrogens & {"HD1", "1HD"}), bool(hydrogens & {"HE2", "2HE"})
        return {(True, True): "HIP", (True, False): "HID", (False, True): "HIE"}.get((delta, epsilon))
    if residue.name == "ASP":
        return "ASH" if hydrogens & {"HD1", "HD2"} else None
    if residue.name == "GLU":
        return "GLH" if hydrogens & {"HE1", "HE2"} else None
    if residue.name == "LYS":
        count = sum(name.strip("123").startswith("HZ") or name[:2] == "HZ" for name in hydrogens)
        return {2: "LYN", 3: "LYS"}.get(count)
    return None


def _bond(first: ResidueRecord, second: ResidueRecord) -> float | None:
    """Return the C-N distance of two residues, angstrom, or None if an atom is missing."""
    carbon, nitrogen = first.position("C"), second.position("N")
    return None if carbon is None or nitrogen is None else float(np.linalg.norm(carbon - nitrogen))
