"""Names of methods, read as PySCF reads them: with a dispersion correction that it computes, or refused."""

from __future__ import annotations

import numpy as np
import pytest
from pyscf import dft, gto

from qmmlmm.coupling.potential import RegionSpecification
from qmmlmm.errors import ConvergenceError, EvaluationError, PotentialError, QmmlmmWarning
from qmmlmm.geometry import Geometry
from qmmlmm.qm import PySCFPotential
from qmmlmm.qm.method import parse_method
from qmmlmm.qm.scf.convergence import ScfRecord, converge

FORMALDEHYDE = np.array([[0, 0, 0], [0, 0, 2.27], [1.78, 0, -1.1], [-1.78, 0.2, -1.1]])
SAME = 1e-9  # hartree; both converged to 1e-11
STEP = 1e-3  # bohr
DERIVATIVE = 2e-6  # hartree/bohr: third derivatives times STEP^2 / 6

dispersion = pytest.mark.skipif(
    pytest.importorskip("pyscf.dispersion") is None, reason="needs the package pyscf-dispersion"
)


@dispersion
@pytest.mark.parametrize("method", ["wb97m-d3bj", "b3lyp-d4", "WB97X-D3BJ"])
def test_energy_and_forces_are_those_of_pyscf(method):
    molecule = gto.M(atom=list(zip("COHH", FORMALDEHYDE, strict=True)), unit="Bohr", basis="sto-3g", verbose=0)
    field = dft.RKS(molecule, xc=method).density_fit()
    field.conv_tol, field.grids.level = 1e-11, 1
    expected = field.kernel()
    specification = RegionSpecification("x/QM", np.array([6, 8, 1, 1]), 0, 1)
    evaluator = PySCFPotential(method, "sto-3g", conv_tol=1e-11, grid_level=1).create_evaluator(specification)
    found = evaluator.evaluate(Geometry(FORMALDEHYDE), None)
    assert found.energy == pytest.approx(expected, abs=SAME)
    step = np.zeros_like(FORMALDEHYDE)
    step[1, 2] = STEP
    upper, lower = (evaluator.energy(Geometry(FORMALDEHYDE + sign * step), None) for sign in (1, -1))
    assert found.gradient[1, 2] == pytest.approx((upper - lower) / (2 * STEP), abs=DERIVATIVE)


def test_a_name_has_a_functional_a_correction_and_its_parameters():
    assert parse_method("wb97m-d3bj").functional == "wb97m-v"
    assert not parse_method("wb97m-d3bj").nonlocal_correlation
    assert parse_method("wb97m-v").nonlocal_correlation
    assert parse_method(" B3LYP-D3BJ ").dispersion == "d3bj"
    assert parse_method("b3lyp").dispersion is None
    assert parse_method("b3lyp-d3bjatm").three_body


@dispersion
@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("wb97x-d", "PySCF does not compute the method 'wb97x-d': wb97x-d is not supported yet"),
        ("wb97x-d3", "not supported yet"),
        ("b97-3c", "Only wb97x-3c is supported"),
        ("b97_3c", "GGA_XC_B97_3C in libxc. is made for a dispersion correction, which PySCF leaves out"),
        ("b97_3c-d3bj", "made for a dispersion correction"),
        ("wb97xd3", "made for a dispersion correction"),
        ("hyb_gga_xc_wb97x_d3", "made for a dispersion correction"),
        ("hyb_gga_xc_wb97x_d", "made for a dispersion correction"),
        ("b97-d", "made for a dispersion correction"),
        ("beefvdw", "made for a dispersion correction"),
        ("b3lyp-d3", "unknown dispersion correction 'd3'; PySCF computes d3bj, d3zero.*Nearest names: d3"),
        ("b3lyp-d3bk", "d3bk"),
        ("m062x-d3bj", "d3bj has no parameters for 'm062x'"),
        ("b97-d3bj", "d3bj has no parameters for 'b97'"),
    ],
)
def test_a_name_whose_correction_pyscf_does_not_compute_is_refused_when_the_potential_is_made(method, message):
    with pytest.raises(PotentialError, match=message):
        PySCFPotential(method, "sto-3g")


@dispersion
def test_a_functional_of_this_kind_with_its_correction_is_accepted():
    assert PySCFPotential("b97_d-d3bj", "sto-3g").method == "b97_d-d3bj"
    assert PySCFPotential("cf22d", "sto-3g").method == "cf22d"


@dispersion
def test_a_name_that_other_programs_read_otherwise_gives_a_warning():
    parse_method.cache_clear()
    from pyscf.scf.dispersion import parse_dft

    parse_dft.cache_clear()
    message = "'wb97x-d4': other programs may mean .* computes 'wb97x' with .* d4:wb97x"
    with pytest.warns(QmmlmmWarning, match=message) as record:
        PySCFPotential("wb97x-d4", "sto-3g")
    assert record[0].filename == __file__


class Refuses:
    """A mean-field object that fails before its first cycle."""

    mol, init_guess, callback = None, "minao", None
    mo_coeff = mo_occ = None
    damp, diis_start_cycle, level_shift = 0.0, 1, 0.0

    def __init__(self, error):
        self.error = error

    def get_init_guess(self, *arguments):
        return np.eye(2)

    def kernel(self, *arguments, **named):
        raise self.error

    def newton(self):
        return self


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (NotImplementedError("no such method"), EvaluationError, "PySCF does not compute this: no such method"),
        (RuntimeError("dftd3 not available"), EvaluationError, "fails before the first cycle.*dftd3 not available"),
        (np.linalg.LinAlgError("singular"), ConvergenceError, "did not converge in 0 cycles"),
    ],
)
def test_an_error_of_a_setting_is_none_of_convergence(error, kind, message):
    with pytest.raises(kind, match=f"term 'x': .*{message}") as caught:
        converge(Refuses(error), [], "term 'x'", lambda: "saved", ScfRecord())
    assert (type(caught.value) is ConvergenceError) == (kind is ConvergenceError)
    assert ("geometry, charge and multiplicity" in str(caught.value)) == (kind is ConvergenceError)
