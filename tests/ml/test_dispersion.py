"""The D3 of the learned potential against the library of its authors, through PySCF."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from pyscf import gto

from qmmlmm.errors import MissingDependencyError, PotentialError
from qmmlmm.ml.dispersion import DispersionTail

dftd3 = pytest.importorskip("pyscf.dispersion.dftd3")
pytest.importorskip("tad_dftd3")

SAME = 1e-8  # hartree, hartree/bohr; the packages hold radii and conversion factors with so many digits
SAME_HESSIAN = 1e-7  # hartree/bohr^2

# Two molecules, one with a metal, some 4 angstrom apart; bohr.
NUMBERS = [6, 1, 1, 8, 7, 16, 30, 17, 6]
START = np.array(
    [
        [0.0, 0.0, 0.0], [2.0, 0.3, 0.1], [-0.9, 1.8, 0.2], [-0.8, -1.2, 1.9], [-0.9, -1.1, -2.2],
        [7.5, 0.4, 0.3], [11.6, 1.0, -0.4], [13.4, 4.6, 0.2], [6.2, 3.4, 0.8],
    ]
)  # fmt: skip


def geometries(count=3, seed=1):
    return START + 0.2 * np.random.default_rng(seed).standard_normal((count, len(NUMBERS), 3))


def library(method, positions):
    molecule = gto.Mole(atom=list(zip(NUMBERS, positions.tolist(), strict=True)), unit="Bohr", verbose=0)
    molecule.spin = None
    molecule.build(dump_input=False, parse_arg=False)
    model = dftd3.DFTD3Dispersion(molecule, xc=method, version="d3bj")
    return model.get_dispersion(grad=True), model.get_hessian()["hessian"]


@pytest.mark.parametrize("method", ["b3lyp", "pbe", "hf"])
def test_energy_gradient_and_hessian_are_those_of_the_library(method):
    tail = torch.jit.script(DispersionTail(NUMBERS, f"{method}-d3bj"))
    positions = geometries()
    leaf = torch.tensor(positions, requires_grad=True)
    energies = tail(leaf)
    (gradients,) = torch.autograd.grad(energies.sum(), leaf)
    for k in range(len(positions)):
        expected, hessian = library(method, positions[k])
        assert float(energies[k].detach()) == pytest.approx(float(expected["energy"]), abs=SAME)
        np.testing.assert_allclose(gradients[k], expected["gradient"], rtol=0, atol=SAME)
        assert abs(float(expected["energy"])) > 1e-3
    found = torch.autograd.functional.hessian(tail, leaf[-1].detach()).reshape(hessian.shape)
    np.testing.assert_allclose(found, hessian, rtol=0, atol=SAME_HESSIAN)


def test_far_fragments_attract_as_the_sixth_power():
    tail = DispersionTail([18, 18], "pbe-d3bj")

    def energy(r):
        return float(tail(torch.tensor([[0.0, 0, 0], [0, 0, r]], dtype=torch.float64)))

    assert energy(40.0) / energy(80.0) == pytest.approx(64.0, rel=0.05)
    assert energy(400.0) / energy(800.0) == pytest.approx(64.0, rel=1e-3)
    assert energy(400.0) < 0.0


@pytest.mark.parametrize("method", ["b3lyp", "b3lyp-d4", "-d3bj", ""])
def test_other_dispersion_is_refused(method):
    with pytest.raises(PotentialError, match=r"with the ending '-d3bj', such as 'b3lyp-d3bj'"):
        DispersionTail(NUMBERS, method)


def test_a_functional_without_parameters_and_an_unknown_element_are_refused():
    with pytest.raises(PotentialError, match="no D3.BJ. parameters for 'b3lpy-d3bj'"):
        DispersionTail(NUMBERS, "b3lpy-d3bj")
    with pytest.raises(PotentialError, match="D3 knows the elements up to 103, the region has 110"):
        DispersionTail([1, 110], "b3lyp-d3bj")


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tad_dftd3.data", None)
    with pytest.raises(MissingDependencyError, match="pip install tad-dftd3"):
        DispersionTail(NUMBERS, "b3lyp-d3bj")
