"""The response for many molecules that comes with qmmlmm, on acetone, of which it has seen no label."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from qmmlmm.coupling import RegionSpecification
from qmmlmm.errors import PotentialError
from qmmlmm.learning import read_frames
from qmmlmm.learning.training.interaction_errors import interaction_errors
from qmmlmm.ml import GeneralResponse
from tests.quick_torch import quick_torch

DATA = Path(__file__).resolve().parents[1] / "benchmarks" / "data"
FRAMES = 10
FORCE_FIELD = (2.7, 65.0)
"""Errors with charges of a force field (`benchmarks/general_response.py`): kJ/mol, kJ/(mol nm)."""


@pytest.fixture(scope="module", autouse=True)
def _quick():
    with quick_torch():
        yield


@pytest.fixture(scope="module")
def response():
    return GeneralResponse.load()


@pytest.fixture(scope="module")
def acetone(tmp_path_factory):
    """Return the first frames of a trajectory; reading all of them takes seconds."""
    path = tmp_path_factory.mktemp("acetone") / "acetone.xyz"
    with gzip.open(DATA / "acetone_water.xyz.gz", "rt") as file:
        n = int(file.readline())
        file.seek(0)
        path.write_text("".join(line for _, line in zip(range(FRAMES * (n + 2)), file, strict=False)))
    return read_frames(path)


def test_it_knows_organic_molecules_and_ions(response):
    assert response.elements == [1, 6, 7, 8, 9, 16, 17]
    assert response.charges == [-1, 0, 1]
    with pytest.raises(PotentialError, match="the response knows the elements H, C, N, O, F, S, Cl, and there is Br"):
        response.check(RegionSpecification("bromide", np.array([35]), -1, 1))


def test_acetone_in_water_is_embedded_better_than_by_charges_of_a_force_field(response, acetone):
    errors = interaction_errors(response, acetone)
    assert errors.energy < FORCE_FIELD[0]
    assert errors.forces < FORCE_FIELD[1]
