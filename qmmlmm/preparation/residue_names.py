"""Names of residues: protein, water, ions, and what crystals often hold besides."""

from __future__ import annotations

AMINO_ACIDS = frozenset(
    {
        "ALA", "ARG", "ASN", "ASP", "CYS", "GLN", "GLU", "GLY", "HIS", "ILE", "LEU", "LYS", "MET", "PHE",
        "PRO", "SER", "THR", "TRP", "TYR", "VAL",
    }
)  # fmt: skip

STATE_NAMES = {
    "ASH": "ASP", "GLH": "GLU", "HID": "HIS", "HIE": "HIS", "HIP": "HIS", "HSD": "HIS", "HSE": "HIS", "HSP": "HIS",
    "LYN": "LYS", "CYX": "CYS", "CYM": "CYS", "CYS2": "CYS",
}  # fmt: skip
"""Names that force fields give to states, and the residues that they are."""

CAPS = frozenset({"ACE", "NME"})

NUCLEOTIDES = frozenset(
    {
        "A", "C", "G", "U", "I", "DA", "DC", "DG", "DT", "DU", "DI",
    }
)  # fmt: skip

WATERS = frozenset({"HOH", "WAT", "DOD", "H2O", "TIP3", "TP3", "SOL", "OH2"})

METAL_IONS = {
    "CA": "Ca", "MG": "Mg", "ZN": "Zn", "MN": "Mn", "CU": "Cu", "NI": "Ni", "CO": "Co", "CD": "Cd", "HG": "Hg",
    "BA": "Ba", "SR": "Sr",
}  # fmt: skip
"""Ions that are kept, each with one template in the force fields (12-6 parameters of the ion with two charges)."""

SALT_IONS = {"NA": "Na", "K": "K", "CL": "Cl", "BR": "Br", "IOD": "I", "LI": "Li", "RB": "Rb", "CS": "Cs", "F": "F"}
"""Ions that the crystal's mother liquor left; the box gets its own."""

AMBIGUOUS_IONS = {"FE": "FE (3+) or FE2 (2+)", "FE2": "FE2 (2+) or FE (3+)", "FE3": "FE (3+) or FE2 (2+)"}

ADDITIVES = frozenset(
    {
        "SO4", "PO4", "EPE", "GOL", "EDO", "PEG", "PGE", "PG4", "1PE", "P6G", "DMS", "ACT", "ACY", "TRS",
        "MES", "BME", "FMT", "NO3", "IPA", "EOH", "MOH", "MPD", "BTB", "BCT", "CIT", "FLC", "TLA", "DTT",
        "NH4", "CO3", "SCN", "AZI", "MLI", "IMD", "HED", "PGO", "UNX",
    }
)  # fmt: skip
"""Buffers, precipitants and cryoprotectants that are left out, with a line in the report."""

HEMES = frozenset(
    {
        "HEM", "HEC", "HEA", "HEB", "HAS", "VER", "SRM", "BCL", "CLA", "CHL", "PHO", "B12", "CNC",
    }
)  # fmt: skip

CLUSTERS = frozenset(
    {
        "SF4", "FES", "F3S", "CLF", "CFM", "ICS", "FS4", "NFS", "XCC", "OEX", "OEC",
    }
)  # fmt: skip

SUGARS = frozenset(
    {
        "NAG", "NDG", "MAN", "BMA", "FUC", "FUL", "GAL", "GLA", "SIA", "NGA", "XYP", "GLC", "BGC", "A2G",
    }
)  # fmt: skip

PHOSPHORYLATED = frozenset({"SEP", "TPO", "PTR", "NEP", "HIP1", "PHD"})

UNSUPPORTED_ELEMENTS = frozenset({"B", "Si", "Se", "As", "Te"})
"""Elements, besides metals, for which neither Sage nor GAFF2 has parameters."""

LIGAND_ELEMENTS = frozenset({"H", "C", "N", "O", "F", "P", "S", "Cl", "Br", "I"})
"""Elements of the ligand force fields."""


def is_amino_acid(name: str) -> bool:
    """Return whether a residue of this name is an amino acid in one of its states."""
    return name in AMINO_ACIDS or name in STATE_NAMES or name == "HYP"
