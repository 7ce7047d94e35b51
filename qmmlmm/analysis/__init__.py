"""Figures and numbers from finished runs."""
