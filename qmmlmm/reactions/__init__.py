"""Reactions: minima, scans, paths, saddle points and frequencies of a region in its surroundings."""

from qmmlmm.reactions.ase_calculator import ase_atoms
from qmmlmm.reactions.elastic_band import BandPath, reaction_path
from qmmlmm.reactions.energy_surface import EnergySurface
from qmmlmm.reactions.frequencies import Frequencies, frequencies
from qmmlmm.reactions.internal_coordinates import Thresholds, geometric_engine
from qmmlmm.reactions.intrinsic_path import IntrinsicPath, intrinsic_path
from qmmlmm.reactions.optimisation import Optimum, optimise
from qmmlmm.reactions.path import ReactionPath, TwoLevels
from qmmlmm.reactions.residue_contributions import barrier_residues
from qmmlmm.reactions.saddle_point import SaddlePoint, saddle_point
from qmmlmm.reactions.scan import scan
from qmmlmm.reactions.scan_results import GridScan, Scan, ScanPoint
from qmmlmm.reactions.structure import Structure
from qmmlmm.reactions.surface import SurfacePoint
from qmmlmm.reactions.thermochemistry import Thermochemistry, eyring_rate, vibrational_thermochemistry

__all__ = [
    "BandPath",
    "EnergySurface",
    "Frequencies",
    "GridScan",
    "IntrinsicPath",
    "Optimum",
    "ReactionPath",
    "SaddlePoint",
    "Scan",
    "ScanPoint",
    "Structure",
    "SurfacePoint",
    "Thermochemistry",
    "Thresholds",
    "TwoLevels",
    "ase_atoms",
    "barrier_residues",
    "eyring_rate",
    "frequencies",
    "geometric_engine",
    "intrinsic_path",
    "optimise",
    "reaction_path",
    "saddle_point",
    "scan",
    "vibrational_thermochemistry",
]
