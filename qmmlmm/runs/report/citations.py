"""What to cite for a calculation."""

from __future__ import annotations

from collections.abc import Collection

REPOSITORY = "https://github.com/qmmlmm/qmmlmm"
OPENMM = "OpenMM: P. Eastman et al., J. Phys. Chem. B 128, 109 (2024), doi:10.1021/acs.jpcb.3c06662"
PYSCF = "PySCF: Q. Sun et al., J. Chem. Phys. 153, 024109 (2020), doi:10.1063/5.0006074"
TBLITE = {
    "gfn2": "GFN2-xTB: C. Bannwarth, S. Ehlert, S. Grimme, J. Chem. Theory Comput. 15, 1652 (2019), "
    "doi:10.1021/acs.jctc.8b01176",
    "gfn1": "GFN1-xTB: S. Grimme, C. Bannwarth, P. Shushkov, J. Chem. Theory Comput. 13, 1989 (2017), "
    "doi:10.1021/acs.jctc.7b00118",
}
LEARNED = "the data and the architecture of your learned potential"
METHODS = "functional, basis set, force field, and the sampling method"


def citations(version: str | None, levels: Collection[str], potentials: str) -> list[str]:
    """Return what to cite, the package first.

    Parameters
    ----------
    version : str or None
        Version of qmmlmm.
    levels : collection of str
        Levels of the terms, such as ``"QM"``.
    potentials : str
        Text that names the potentials.
    """
    found = [f"qmmlmm {version or ''}: {REPOSITORY}, with the metadata of its file CITATION.cff", OPENMM]
    if "QM" in levels:
        found.append(PYSCF)
    found += [text for name, text in TBLITE.items() if name in potentials.lower()]
    return [*found, *([LEARNED] if "ML" in levels else []), METHODS]
