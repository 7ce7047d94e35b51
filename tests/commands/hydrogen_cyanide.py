"""The input file of HCN that tests of reactions share: what is computed, and the variable."""

from __future__ import annotations

import numpy as np

START = np.array([[0.0, 0.0, 0.0], [0.1194, 0.0, 0.0], [0.01, 0.118, 0.0]])
"""H above the bond, nm, near the first centre of a scan."""

MOLECULE = """
directory = "results"

[system]
xml = "system.xml"
topology = "molecule.pdb"
coordinates = "molecule.pdb"

[region.molecule]
select = "all"
charge = 0

[[term]]
method = "gfn2-xtb"
embedding = "mechanical"

[[variable]]
name = "xi"
combination = [[1.0, 0, 2], [-1.0, 1, 2]]
"""
