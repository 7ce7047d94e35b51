"""Learned potentials: networks, their files, and wrappers for other models."""

from qmmlmm.ml.aimnet2 import aimnet2_potential
from qmmlmm.ml.embedded_potential import EmbeddedPotential
from qmmlmm.ml.fixed_response import FixedResponse
from qmmlmm.ml.general_response import GeneralResponse
from qmmlmm.ml.ml_potential import MLPotential, region_potential
from qmmlmm.ml.model_charges import ModelCharges
from qmmlmm.ml.network_file import load_network, save_network
from qmmlmm.ml.response_model import ResponseModel
from qmmlmm.ml.response_network import ResponseNetwork
from qmmlmm.ml.response_settings import ResponseSettings
from qmmlmm.ml.so3lr import SO3LRPotential

__all__ = [
    "EmbeddedPotential",
    "FixedResponse",
    "GeneralResponse",
    "MLPotential",
    "ModelCharges",
    "ResponseModel",
    "ResponseNetwork",
    "ResponseSettings",
    "SO3LRPotential",
    "aimnet2_potential",
    "load_network",
    "region_potential",
    "save_network",
]
