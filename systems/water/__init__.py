"""Boxes of pure water: see README.md."""

from systems.water.builder import build

__all__ = ["build"]
