"""One acetone molecule in water: see README.md."""

from systems.acetone_water.builder import ACETONE, build

__all__ = ["ACETONE", "build"]
