"""Figures and numbers from finished runs, and a view of regions."""

from qmmlmm.analysis.region_view import view

__all__ = ["view"]
