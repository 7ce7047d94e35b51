from __future__ import annotations

import json
import random
import zipfile

import pytest
import torch

from qmmlmm import MLPotential
from qmmlmm.errors import PotentialError
from qmmlmm.ml.ml_potential import region_potential
from qmmlmm.ml.model_file import (
    CHECKSUMS_FILE,
    FORMAT_VERSION,
    SETTINGS_FILE,
    WEIGHTS_FILE,
    ModelFile,
    read_model_file,
    write_model_file,
)
from qmmlmm.ml.network_file import load_network, network_settings, save_network
from qmmlmm.ml.response_settings import ResponseSettings
from tests.ml import networks

SMALL = ResponseSettings(features=16, radial_functions=8, near_cutoff=0.0)
FLIPS = 80


def single_precision(settings):
    """A network as it is trained."""
    return networks.network(settings, dtype=torch.float32)


@pytest.fixture
def network():
    return single_precision(SMALL)


def same_numbers(one, other):
    return all(torch.equal(value, other.state_dict()[key]) for key, value in one.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_network_comes_back_from_its_file_to_the_last_bit(tmp_path, dtype):
    path = tmp_path / "network.pt"
    network = networks.network(SMALL, dtype=dtype)
    save_network(network, path)
    found = load_network(path)
    assert network_settings(found) == network_settings(network)
    assert same_numbers(network, found)
    assert found.embedding.dtype == dtype


def test_network_and_potential_read_each_others_files(network, tmp_path):
    potential = region_potential(network)
    potential.save(tmp_path / "model.pt")
    save_network(network, tmp_path / "network.pt")
    assert same_numbers(load_network(tmp_path / "model.pt"), network)
    for name in ("model.pt", "network.pt"):
        loaded = MLPotential.load(tmp_path / name)
        assert loaded.fingerprint() == potential.fingerprint()
        assert loaded.conditions == potential.conditions
        assert loaded.embeddings == potential.embeddings


def test_the_file_of_a_network_has_no_code(network, tmp_path):
    region_potential(network).save(tmp_path / "model.pt")
    with zipfile.ZipFile(tmp_path / "model.pt") as archive:
        assert sorted(archive.namelist()) == sorted([SETTINGS_FILE, WEIGHTS_FILE, CHECKSUMS_FILE])


def test_the_same_network_gives_the_same_file(network, tmp_path):
    save_network(network, tmp_path / "one.pt")
    save_network(load_network(tmp_path / "one.pt"), tmp_path / "two.pt")
    assert (tmp_path / "one.pt").read_bytes() == (tmp_path / "two.pt").read_bytes()


def test_the_fingerprint_follows_settings_and_weights(network):
    before = region_potential(network).fingerprint()
    assert region_potential(network).fingerprint() == before
    with torch.no_grad():
        network.embedding[0, 0, 0] += 1e-6
    assert region_potential(network).fingerprint() != before


def test_what_is_no_network_file_is_refused(network, tmp_path):
    path = tmp_path / "network.pt"
    with pytest.raises(FileNotFoundError, match="no model file"):
        load_network(path)
    path.write_bytes(b"something else")
    with pytest.raises(PotentialError, match="is not a model file"):
        load_network(path)
    save_network(network, path)
    content = read_model_file(path)
    for version in (FORMAT_VERSION - 1, FORMAT_VERSION + 1):
        write_model_file(path, ModelFile({**content.settings, "format_version": version}, weights=content.weights))
        with pytest.raises(PotentialError, match=f"has the format version {version}, this qmmlmm reads"):
            load_network(path)


def test_a_module_of_the_users_own_is_no_network(tmp_path):
    write_model_file(tmp_path / "own.pt", ModelFile({}, module=b"code"))
    with pytest.raises(PotentialError, match="has a module of its author's own and no network"):
        load_network(tmp_path / "own.pt")


@pytest.mark.parametrize(
    "changed",
    [
        {"settings": {"features": 0}},
        {"settings": {"feature": 8}},
        {"settings": 5},
        {"members": 7},
        {"precision": "float8"},
        {"bonds": [[0]]},
        {"conditions": []},
        {"atomic_numbers": "water"},
    ],
)
def test_settings_that_do_not_make_the_network_are_refused(network, tmp_path, changed):
    path = tmp_path / "network.pt"
    save_network(network, path)
    content = read_model_file(path)
    write_model_file(path, ModelFile({"network": network_settings(network) | changed}, weights=content.weights))
    with pytest.raises(PotentialError, match=r"network.pt' has no network that this qmmlmm can read: "):
        load_network(path)


def test_a_file_without_network_is_refused(network, tmp_path):
    path = tmp_path / "network.pt"
    save_network(network, path)
    write_model_file(path, ModelFile({"units": "bohr"}, weights=read_model_file(path).weights))
    with pytest.raises(PotentialError, match=r"has no setting 'network'; it has format_version, units"):
        load_network(path)


def test_neither_weights_nor_module_is_refused(tmp_path):
    write_model_file(tmp_path / "nothing.pt", ModelFile({"network": {}}))
    with pytest.raises(PotentialError, match=r"has neither or both of weights.pt and module.pt"):
        load_network(tmp_path / "nothing.pt")


@pytest.mark.parametrize("text", ["", "{", "[1]", "null"])
def test_settings_that_are_no_json_are_refused(network, tmp_path, text):
    path = tmp_path / "network.pt"
    save_network(network, path)
    changed(path, {SETTINGS_FILE: text.encode()})
    with pytest.raises(PotentialError, match="is damaged: its content has another checksum"):
        load_network(path)


def changed(path, parts):
    """Replace parts of an archive, as somebody with an editor would, and leave its checksums as they are."""
    with zipfile.ZipFile(path) as archive:
        kept = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in (kept | parts).items():
            archive.writestr(name, data)


def test_changed_settings_and_additional_parts_are_seen(network, tmp_path):
    path = tmp_path / "network.pt"
    save_network(network, path)
    settings = json.loads(zipfile.ZipFile(path).read(SETTINGS_FILE))
    settings["network"]["conditions"] = [[1, 2, 0]]
    for parts in ({SETTINGS_FILE: json.dumps(settings).encode()}, {"more": b"x"}):
        save_network(network, path)
        changed(path, parts)
        with pytest.raises(PotentialError, match="is damaged: its content has another checksum"):
            load_network(path)


def test_no_flipped_bit_loads_other_numbers(network, tmp_path):
    path = tmp_path / "network.pt"
    save_network(network, path)
    good = path.read_bytes()
    random_places = random.Random(5)
    refused = 0
    for _ in range(FLIPS):
        bad = bytearray(good)
        bad[random_places.randrange(len(bad))] ^= 1 << random_places.randrange(8)
        path.write_bytes(bytes(bad))
        try:
            found = load_network(path)
        except PotentialError:
            refused += 1
            continue
        # A bit that nothing reads, such as one of the time of a part.
        assert same_numbers(network, found)
        assert network_settings(found) == network_settings(network)
    assert refused > FLIPS // 2
