"""Files of a prepared folder keep what a PDB file loses: chains, large residue numbers, bonds of N-terminal proline."""

from __future__ import annotations

import numpy as np
import openmm
from openmm import app

from qmmlmm.preparation.prepared_files import read_prepared, topology_text

N_CHAINS = 70
FIRST_RESIDUE = 39_995
PROLINE = ("N", "H2", "H3", "CA", "HA", "CB", "HB2", "HB3", "CG", "HG2", "HG3", "CD", "HD2", "HD3", "C", "O")
PROLINE_BONDS = [
    ("N", "H2"), ("N", "H3"), ("N", "CA"), ("N", "CD"), ("CA", "HA"), ("CA", "CB"), ("CA", "C"), ("CB", "HB2"),
    ("CB", "HB3"), ("CB", "CG"), ("CG", "HG2"), ("CG", "HG3"), ("CG", "CD"), ("CD", "HD2"), ("CD", "HD3"), ("C", "O"),
]  # fmt: skip


def written(topology, folder):
    """Write a folder as ``qmmlmm prepare`` does, and read its Topology back."""
    system = openmm.System()
    for _ in topology.atoms():
        system.addParticle(1.0)
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatform("Reference"))
    context.setPositions(0.3 * np.arange(3 * topology.getNumAtoms(), dtype=float).reshape(-1, 3) % 5.0)
    state = context.getState(positions=True)
    (folder / "topology.cif").write_text(topology_text(topology, state, app.PDBxFile))
    for name, content in (("system.xml", system), ("state.xml", state)):
        (folder / name).write_text(openmm.XmlSerializer.serialize(content))
    return read_prepared(folder)[0]


def test_seventy_chains_and_residue_forty_thousand_keep_their_names(tmp_path):
    topology = app.Topology()
    for k in range(N_CHAINS):
        chain = topology.addChain(f"C{k}")
        residue = topology.addResidue("HOH", chain, str(FIRST_RESIDUE + k))
        topology.addAtom("O", app.element.oxygen, residue)
    found = written(topology, tmp_path)
    assert [chain.id for chain in found.chains()] == [f"C{k}" for k in range(N_CHAINS)]
    assert [residue.id for residue in found.residues()] == [str(FIRST_RESIDUE + k) for k in range(N_CHAINS)]


def test_both_hydrogens_of_an_n_terminal_proline_stay_bonded(tmp_path):
    topology = app.Topology()
    chain = topology.addChain("A")
    proline = topology.addResidue("PRO", chain, "1")
    atoms = {name: topology.addAtom(name, app.Element.getBySymbol(name[0]), proline) for name in PROLINE}
    for first, second in PROLINE_BONDS:
        topology.addBond(atoms[first], atoms[second])
    other = topology.addResidue("ALA", chain, "2")
    nitrogen = topology.addAtom("N", app.element.nitrogen, other)
    topology.addBond(atoms["C"], nitrogen)
    found = written(topology, tmp_path)
    names = {frozenset((a.name, b.name)) for a, b in found.bonds() if a.residue is b.residue}
    assert names == {frozenset(bond) for bond in PROLINE_BONDS}
