"""Small organic molecules of H, C, N, O, F, S and Cl by functional group, for potentials that know many molecules.

Geometries are made by RDKit, and charges by GFN2-xTB. All molecules have closed shells.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from systems.solute_in_water import LENNARD_JONES, Solute

GROUPS: dict[str, str] = {
    "alkanes": "C CC CCC CCCC CC(C)C C1CC1 C1CCC1 C1CCCC1 C1CCCCC1 CC(C)(C)C",
    "alkenes and alkynes": "C=C CC=C CC(C)=C CC=CC C=CC=C C#C CC#C CC#CC C=C=C C1=CCCC1 C=CC#C",
    "aromatics": "c1ccccc1 Cc1ccccc1 C=Cc1ccccc1 c1ccc2ccccc2c1",
    "alcohols": "CO CCO CC(C)O CCCO OCCO C=CCO OCC(O)CO CC(C)(C)O OC1CCC1 C#CCO OCc1ccccc1",
    "phenols": "Oc1ccccc1 Cc1ccc(O)cc1 Oc1ccccc1O",
    "ethers": "COC CCOC C1CCOC1 COCCO COCOC C1COCCO1 C=COC COc1ccccc1 C1CCOCC1 c1ccoc1",
    "aldehydes": "C=O CC=O CCC=O C=CC=O O=Cc1ccccc1 O=CC=O OCC=O CC(C)C=O",
    "ketones": "CCC(C)=O O=C1CCC1 CC(=O)C=C CC(=O)C(C)=O O=C1CCCC1 CC(=O)CO CC(=O)c1ccccc1 CC(=O)CC(C)=O",
    "carboxylic acids": "OC=O CC(O)=O CCC(O)=O C=CC(O)=O OC(=O)CO OC(=O)C(O)=O OC(=O)c1ccccc1 CC(O)C(O)=O",
    "esters": "COC=O COC(C)=O CCOC(C)=O CC(=O)OC=C O=C1CCCO1 COC(=O)OC COC(=O)CO",
    "amines": "CN CNC CN(C)C CCN CC(C)N C1CCNC1 NCCN NCCO C1CCNCC1 C1COCCN1 C=CCN CCN(C)C C1CN1 NCc1ccccc1",
    "anilines": "Nc1ccccc1 CNc1ccccc1 Nc1ccc(O)cc1",
    "amides": "NC=O CC(N)=O CNC=O CNC(C)=O CN(C)C=O CC(=O)N(C)C O=C1CCCN1 NC(=O)CO NC(=O)c1ccccc1 "
    "CC(=O)NCC(N)=O NC(=O)C=C CCC(N)=O O=C1CCC(=O)N1",
    "ureas": "NC(N)=O CNC(N)=O CNC(=O)NC O=C1NCCN1",
    "amidines and guanidines": "NC=N CC(N)=N NC(N)=N CN=C(N)N",
    "imines and hydrazones": "C=N CC=N CC=NC C=NN CC(C)=NC NN CNN",
    "nitriles": "C#N CC#N CCC#N C=CC#N N#CCC#N N#Cc1ccccc1 OCC#N NC#N",
    "nitro": "C[N+](=O)[O-] CC[N+](=O)[O-] O=[N+]([O-])c1ccccc1",
    "azoles": "c1c[nH]cn1 Cc1c[nH]cn1 c1cc[nH]c1 c1cn[nH]c1 Cn1ccnc1 c1cnoc1 c1cocn1 c1cscn1 c1nc[nH]n1 "
    "c1ccc2[nH]ccc2c1",
    "azines": "c1ccncc1 c1cncnc1 c1cnccn1 Cc1ccccn1 Nc1ccncc1 c1ccnnc1 Oc1ccccn1 O=c1cc[nH]cc1 Nc1ncccn1",
    "nucleobases": "O=c1cc[nH]c(=O)[nH]1 Nc1cc[nH]c(=O)n1 Cc1c[nH]c(=O)[nH]c1=O Nc1ncnc2[nH]cnc12",
    "thiols": "S CS CCS C=CS Sc1ccccc1 SCCO NCCS CC(C)S",
    "thioethers": "CSC CCSC C1CCSC1 CSSC c1ccsc1 CSCCO C1CSCCS1 CSc1ccccc1 C1CS1",
    "thiocarbonyls": "C=S CC(N)=S NC(N)=S CC(C)=S CC(=O)SC CC(O)=S",
    "sulfones and sulfonamides": "CS(C)(=O)=O CS(N)(=O)=O CS(=O)(=O)NC O=S1(=O)CCCC1 NS(=O)(=O)c1ccccc1",
    "fluorides": "CF FCF FC(F)F CCF C=CF Fc1ccccc1 OCC(F)(F)F FC(F)(F)c1ccccc1 CC(F)(F)F NC(=O)CF OC(=O)C(F)(F)F",
    "chlorides": "CCl ClCCl ClC(Cl)Cl CCCl C=CCl Clc1ccccc1 OCCCl CC(=O)CCl ClCC(O)=O C=C(Cl)Cl NC(=O)CCl",
    "water and ammonia": "O N OO NO CNO CON",
    "carboxylates": "[O-]C=O CC(=O)[O-] CCC(=O)[O-] [O-]C(=O)CO [O-]C(=O)c1ccccc1 [O-]C(=O)C=C",
    "ammonium ions": "[NH4+] C[NH3+] C[NH2+]C C[NH+](C)C C[N+](C)(C)C CC[NH3+] C1CC[NH2+]C1 OCC[NH3+] [NH3+]CC(N)=O",
    "conjugate acids": "NC(N)=[NH2+] CNC(N)=[NH2+] CC(N)=[NH2+] c1c[nH]c[nH+]1 Cc1c[nH]c[nH+]1 c1cc[nH+]cc1 C=[NH2+] "
    "C[NH+]=C C[n+]1ccccc1",
    "other anions": "C[S-] CC[S-] [O-]c1ccccc1 C[O-] [O-]N=C [S-]c1ccccc1 CS(=O)(=O)[O-] [N-]=[N+]=[N-] "
    "CC(=O)[CH-]C(C)=O [O-]C#N",
    "halides of acids, and others": "CC(=O)Cl CC(=O)F O=C=O O=C=CC S=C=O CN=C=O C1=CC=CO1 O=C1C=CC(=O)N1",
    "amino acids": "CC(=O)NC CC(=O)NC(C)C(=O)NC NCC(O)=O CSCCC CC(C)CO OC(=O)CCC(N)=O",
}
"""Molecules to learn from, as SMILES."""

UNSEEN_MOLECULES = (
    "CC(C)=O CCCCC C=CCC Cc1ccccc1C OCCCO CCOCC CCCC=O CCC(=O)CC CC(C)C(O)=O CCOC=O CCNC CC(=O)NCC "
    "CC(C)C#N Cc1ccncc1 Cn1cccc1 CCSC(C)=O CC(C)F CC(C)Cl CCCC(=O)[O-] CC(C)[NH3+] CCNC(N)=O Nc1ccccc1C"
)
"""Molecules of the groups that are kept for a test."""

UNSEEN_GROUPS: dict[str, str] = {
    "oximes": "C=NO CC=NO CC(C)=NO",
    "carbamates": "NC(=O)OC CNC(=O)OC",
    "sulfoxides": "CS(C)=O O=S1CCCC1",
    "N-oxides": "C[N+](C)(C)[O-] [O-][n+]1ccccc1",
    "epoxides": "C1CO1 CC1CO1",
    "thiazolium, oxazolidinone": "C[n+]1ccsc1 O=C1NCCO1",
}
"""Whole functional groups that are kept for a test."""

POLAR_HYDROGEN = (0.1, 0.0)
"""Hydrogen at N, O or S; sigma in nm, epsilon in kJ/mol. It has no Lennard-Jones energy, as in GAFF's type ho."""

LONGEST_BOND = 1.3
"""Of the distance of the covalent radii of two atoms."""


@dataclass(frozen=True)
class Molecule:
    """A molecule in a vacuum.

    Parameters
    ----------
    smiles : str
    symbols : tuple of str
    positions : (n, 3) float array, angstrom
    bonds : tuple of (int, int)
    charge : int
    """

    smiles: str
    symbols: tuple[str, ...]
    positions: np.ndarray
    bonds: tuple[tuple[int, int], ...]
    charge: int

    def is_whole(self, positions: np.ndarray) -> bool:
        """Return whether exactly the bonds of the molecule are there in a geometry, (n, 3) angstrom."""
        from ase.data import atomic_numbers, covalent_radii

        radii = np.array([covalent_radii[atomic_numbers[s]] for s in self.symbols])
        distances = np.linalg.norm(positions[:, None] - positions, axis=-1)
        close = distances < LONGEST_BOND * (radii[:, None] + radii)
        expected = np.eye(len(radii), dtype=bool)
        for i, j in self.bonds:
            expected[i, j] = expected[j, i] = True
        return bool((close == expected).all())


def learned_from() -> dict[str, str]:
    """Return the group of each molecule to learn from, by its SMILES; none of them is kept for a test."""
    kept = {canonical(smiles) for smiles in unseen()}
    found = {canonical(smiles): group for group, text in GROUPS.items() for smiles in text.split()}
    return {smiles: group for smiles, group in found.items() if smiles not in kept}


def unseen() -> dict[str, str]:
    """Return the group of each molecule of a test, by its SMILES; molecules of known groups have "molecules"."""
    found = {canonical(smiles): "molecules" for smiles in UNSEEN_MOLECULES.split()}
    found.update({canonical(smiles): group for group, text in UNSEEN_GROUPS.items() for smiles in text.split()})
    return found


def canonical(smiles: str) -> str:
    """Return RDKit's canonical SMILES."""
    from rdkit import Chem

    return str(Chem.CanonSmiles(smiles))


def build_molecule(smiles: str, seed: int) -> Molecule:
    """Return a conformation of a molecule.

    Parameters
    ----------
    smiles : str
    seed : int
        Seed of the conformation.

    Raises
    ------
    ValueError
        If RDKit finds no geometry.
    """
    from rdkit import Chem
    from rdkit.Chem import AllChem

    molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
    if AllChem.EmbedMolecule(molecule, randomSeed=seed) != 0:
        raise ValueError(f"RDKit finds no geometry of {smiles!r}; leave it out")
    if AllChem.MMFFHasAllMoleculeParams(molecule):
        AllChem.MMFFOptimizeMolecule(molecule)
    else:
        AllChem.UFFOptimizeMolecule(molecule)
    return Molecule(
        smiles,
        tuple(atom.GetSymbol() for atom in molecule.GetAtoms()),
        np.array(molecule.GetConformer().GetPositions()),
        tuple((bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()) for bond in molecule.GetBonds()),
        Chem.GetFormalCharge(molecule),
    )


def solute_of(molecule: Molecule, positions: np.ndarray) -> Solute:
    """Return a geometry of a molecule, (n, 3) angstrom, as a solute with the charges of GFN2-xTB."""
    from ase.data import atomic_numbers
    from ase.units import Bohr
    from tblite.interface import Calculator

    numbers = np.array([atomic_numbers[symbol] for symbol in molecule.symbols])
    calculator = Calculator("GFN2-xTB", numbers, positions / Bohr, charge=float(molecule.charge))
    calculator.set("verbosity", 0)
    charges = np.array(calculator.singlepoint().get("charges"))
    partners = dict(pair for i, j in molecule.bonds for pair in ((i, j), (j, i)))
    lennard_jones = [
        POLAR_HYDROGEN
        if symbol == "H" and molecule.symbols[partners.get(k, k)] in ("N", "O", "S")
        else LENNARD_JONES[symbol]
        for k, symbol in enumerate(molecule.symbols)
    ]
    solute = Solute("MOL", molecule.symbols, positions, tuple(charges))
    return dataclasses.replace(solute, lennard_jones=tuple(lennard_jones))
