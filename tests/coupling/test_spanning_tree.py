from __future__ import annotations

import numpy as np

from qmmlmm.coupling.spanning_tree import spanning_tree


def test_each_atom_is_reached_along_bonds_from_the_anchor():
    bonds = np.array([[0, 1], [1, 2], [2, 3], [2, 4], [4, 0]])  # a ring with a tail
    tree = spanning_tree(5, bonds, 2)
    steps = list(zip(tree.parents.tolist(), tree.children.tolist(), strict=True))
    assert sorted(child for _, child in steps) == [0, 1, 3, 4]
    assert {tuple(sorted(step)) for step in steps} <= {tuple(sorted(bond)) for bond in bonds.tolist()}
    # The steps to each atom add up to its place, if each is the difference of child and parent.
    places = np.random.default_rng(1).standard_normal((5, 3))
    np.testing.assert_allclose(tree.paths @ (places[tree.children] - places[tree.parents]), places - places[2])


def test_a_further_molecule_follows_the_anchor_by_its_centre():
    tree = spanning_tree(6, np.array([[0, 1], [1, 2], [3, 4], [4, 5]]), 1)
    assert (1, 4) in zip(tree.parents.tolist(), tree.children.tolist(), strict=True)
    assert tree.paths[3].sum() == 2
    assert tree.children[-1] == 4  # after the steps along bonds
    assert tree.n_bonds == 4


def test_one_atom_has_no_steps():
    tree = spanning_tree(1, np.zeros((0, 2), dtype=int), 0)
    assert tree.paths.shape == (1, 0)
