from __future__ import annotations

import pytest
import torch

from qmmlmm.errors import PotentialError
from qmmlmm.ml.network_file import NETWORK_VERSION, load_network, save_network
from qmmlmm.ml.response_network import ResponseSettings
from tests.ml import networks

SMALL = ResponseSettings(features=16, radial_functions=8, near_cutoff=0.0)


def single_precision(settings):
    """A network as it is trained."""
    return networks.network(settings, dtype=torch.float32)


@pytest.fixture
def network():
    return single_precision(SMALL)


def test_a_network_comes_back_from_its_file_to_the_last_bit(network, tmp_path):
    path = tmp_path / "network.pt"
    save_network(network, path)
    found = load_network(path)
    assert found.settings == network.settings
    assert found.known_conditions() == network.known_conditions()
    for key, value in network.state_dict().items():
        assert torch.equal(value, found.state_dict()[key]), key


def test_what_is_no_network_file_is_refused(network, tmp_path):
    path = tmp_path / "network.pt"
    with pytest.raises(FileNotFoundError, match="no network file"):
        load_network(path)
    path.write_bytes(b"something else")
    with pytest.raises(PotentialError, match="is no network file, or is damaged"):
        load_network(path)
    save_network(network, path)
    content = torch.load(path, weights_only=True)
    for version in (NETWORK_VERSION - 1, NETWORK_VERSION + 1):
        torch.save({**content, "version": version}, path)
        with pytest.raises(PotentialError, match=f"has the format version {version}, this qmmlmm reads"):
            load_network(path)
