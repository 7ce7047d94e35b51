from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from qmmlmm.errors import PotentialError
from qmmlmm.learning import load_network, save_network
from qmmlmm.learning.frame_tensors import frame_tensors
from qmmlmm.learning.network_file import NETWORK_VERSION
from qmmlmm.learning.prediction import predict
from qmmlmm.learning.training import create_model
from qmmlmm.ml.response_network import ResponseSettings
from qmmlmm.units import ANGSTROM_IN_BOHR

SMALL = ResponseSettings(features=16, radial_functions=8, near_cutoff=0.0)


@pytest.fixture
def network(teacher):
    return create_model(teacher.frames(8), SMALL, members=2)


def bonded_by_hand(polynomial, positions, steepness):
    """The sum of the powers, pair by pair."""
    total = 0.0
    for a, b, kind in zip(polynomial.first, polynomial.second, polynomial.kinds, strict=True):
        distance = float((positions[a] - positions[b]).norm())
        stretch = 1.0 - np.exp(-steepness * (distance - float(polynomial.equilibrium[kind])))
        total += sum(float(c) * stretch**power for power, c in enumerate(polynomial.coefficients[kind], start=1))
    return total


def test_a_network_comes_back_from_its_file_to_the_last_bit(network, tmp_path):
    path = tmp_path / "network.pt"
    save_network(network, path)
    found = load_network(path)
    assert found.settings == network.settings
    assert found.known_conditions() == network.known_conditions()
    for key, value in network.state_dict().items():
        assert torch.equal(value, found.state_dict()[key]), key


def test_a_file_of_the_first_version_keeps_its_energies(network, teacher, tmp_path):
    """It had one steepness for all pairs and did not write it."""
    path = tmp_path / "network.pt"
    save_network(network, path)
    content = torch.load(path, weights_only=True)
    assert content["version"] == NETWORK_VERSION
    del content["weights"]["bonded.steepness"]
    torch.save({**content, "version": 1}, path)
    positions = torch.tensor(teacher.frame().positions)
    found = load_network(path).bonded(positions).item()
    assert found == pytest.approx(bonded_by_hand(network.bonded, positions, 1.5 / ANGSTROM_IN_BOHR), abs=1e-12)
    assert abs(found - network.bonded(positions).item()) > 1e-5


def test_a_file_of_the_second_version_keeps_its_energies(teacher, tmp_path):
    """Its networks had no features of second rank."""
    frames = teacher.frames(8)
    settings = replace(SMALL, near_cutoff=5.0, near_functions=4, near_features=4, tensor_features=0)
    network = create_model(frames, settings, members=2)
    path = tmp_path / "network.pt"
    save_network(network, path)
    content = torch.load(path, weights_only=True)
    del content["settings"]["tensor_features"]
    for key in [key for key in content["weights"] if "tensor" in key]:
        del content["weights"][key]
    torch.save({**content, "version": 2}, path)
    found = load_network(path)
    assert found.settings == settings
    tensors = frame_tensors(frames, network.known_conditions())
    assert torch.equal(predict(found, tensors).forces, predict(network.eval(), tensors).forces)


def test_a_file_of_the_third_version_keeps_its_uncertainties(network, tmp_path):
    """Its scale is that of the plain spread."""
    path = tmp_path / "network.pt"
    network.separate_parts.fill_(True)
    save_network(network, path)
    assert load_network(path).separate_parts
    content = torch.load(path, weights_only=True)
    del content["weights"]["separate_parts"]
    torch.save({**content, "version": 3}, path)
    assert not load_network(path).separate_parts


def test_what_is_no_network_file_is_refused(network, tmp_path):
    path = tmp_path / "network.pt"
    with pytest.raises(FileNotFoundError, match="no network file"):
        load_network(path)
    path.write_bytes(b"something else")
    with pytest.raises(PotentialError, match="is no network file, or is damaged"):
        load_network(path)
    save_network(network, path)
    content = torch.load(path, weights_only=True)
    torch.save({**content, "version": NETWORK_VERSION + 1}, path)
    with pytest.raises(PotentialError, match=f"has the format {NETWORK_VERSION + 1}, this version reads 1 to"):
        load_network(path)
