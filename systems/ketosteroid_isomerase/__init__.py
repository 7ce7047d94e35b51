"""Ketosteroid isomerase with equilenin in water: see README.md."""

from systems.ketosteroid_isomerase.builder import SITE_A, SITE_B, build

__all__ = ["SITE_A", "SITE_B", "build"]
