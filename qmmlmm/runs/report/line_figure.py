"""Curves in a frame with axes, as SVG: small, sharp at any size, and drawn in milliseconds at every checkpoint."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qmmlmm.units import FloatArray

WIDTH, HEIGHT = 460.0, 250.0
LEFT, RIGHT, TOP, BOTTOM = 62.0, 20.0, 8.0, 38.0
MOST_POINTS = 300
"""Points of a curve; of more rows, means with the range from the least to the largest are drawn."""
MOST_MARKED = 40
TICKS = 5
STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True, eq=False)
class Curve:
    """A curve of a figure.

    Parameters
    ----------
    label : str
    x, y : (n,) float arrays
        Points that are not finite are left out.
    colour : str
        Colour of HTML.
    dashed : bool
    """

    label: str
    x: FloatArray
    y: FloatArray
    colour: str
    dashed: bool = False


def line_figure(curves: Sequence[Curve], x_label: str, y_label: str) -> str:
    """Return curves in a frame with a key below, SVG and HTML.

    Parameters
    ----------
    curves : sequence of Curve
    x_label, y_label : str
        Names of the axes with their units.
    """
    drawn = [_Means.of(curve) for curve in curves]
    points = [means for means in drawn if len(means.x)]
    if not points:
        return '<p class="note">No rows yet.</p>'
    x_low, x_high = _limits([means.x for means in points], 0.0)
    y_low, y_high = _limits([bound for means in points for bound in (means.low, means.high)], 0.06)
    x_scale = (WIDTH - LEFT - RIGHT) / (x_high - x_low)
    y_scale = (HEIGHT - TOP - BOTTOM) / (y_high - y_low)

    def at(x: FloatArray, y: FloatArray) -> str:
        across = LEFT + (x - x_low) * x_scale
        down = HEIGHT - BOTTOM - (y - y_low) * y_scale
        return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(across, down, strict=True))

    parts = [f'<svg viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img" aria-label="{html.escape(y_label, quote=True)}">']
    for value, text in _ticks(y_low, y_high):
        y = HEIGHT - BOTTOM - (value - y_low) * y_scale
        parts.append(f'<line class="grid" x1="{LEFT:g}" x2="{WIDTH - RIGHT:g}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 5:g}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
    for value, text in _ticks(x_low, x_high):
        x = LEFT + (value - x_low) * x_scale
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP:g}" y2="{HEIGHT - BOTTOM:g}"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{HEIGHT - BOTTOM + 14:g}" text-anchor="middle">{text}</text>')
    for curve, means in zip(curves, drawn, strict=True):
        if means.averaged:
            around = at(np.concatenate([means.x, means.x[::-1]]), np.concatenate([means.high, means.low[::-1]]))
            parts.append(f'<polygon points="{around}" fill="{curve.colour}" fill-opacity="0.2"/>')
        dashes = ' stroke-dasharray="5 3"' if curve.dashed else ""
        parts.append(
            f'<polyline points="{at(means.x, means.y)}" fill="none" stroke="{curve.colour}" stroke-width="1.8" '
            f'stroke-linejoin="round"{dashes}/>'
        )
        if len(means.x) <= MOST_MARKED:
            for point in at(means.x, means.y).split():
                x_text, _, y_text = point.partition(",")
                parts.append(f'<circle cx="{x_text}" cy="{y_text}" r="2.4" fill="{curve.colour}"/>')
    middle = TOP + 0.5 * (HEIGHT - TOP - BOTTOM)
    parts += [
        f'<text x="{LEFT + 0.5 * (WIDTH - LEFT - RIGHT):g}" y="{HEIGHT - 5:g}" text-anchor="middle">'
        f"{html.escape(x_label)}</text>",
        f'<text x="12" y="{middle:g}" text-anchor="middle" transform="rotate(-90 12 {middle:g})">'
        f"{html.escape(y_label)}</text>",
        "</svg>",
    ]
    return "".join(parts) + _key(curves)


@dataclass(frozen=True, eq=False)
class _Means:
    """Points of a curve as they are drawn: of many rows their means, least and largest values."""

    x: FloatArray
    y: FloatArray
    low: FloatArray
    high: FloatArray
    averaged: bool

    @classmethod
    def of(cls, curve: Curve) -> _Means:
        finite = np.isfinite(curve.x) & np.isfinite(curve.y)
        x, y = curve.x[finite], curve.y[finite]
        if len(x) <= MOST_POINTS:
            return cls(x, y, y, y, False)
        blocks = np.array_split(np.arange(len(x)), MOST_POINTS)
        return cls(
            np.array([x[block].mean() for block in blocks]),
            np.array([y[block].mean() for block in blocks]),
            np.array([y[block].min() for block in blocks]),
            np.array([y[block].max() for block in blocks]),
            True,
        )


def _key(curves: Sequence[Curve]) -> str:
    shown = (
        f'<span><i style="background:{curve.colour}"></i>{html.escape(curve.label)}</span>'
        for curve in curves
        if curve.label
    )
    return f'<div class="key">{"".join(shown)}</div>'


def _limits(values: Sequence[FloatArray], margin: float) -> tuple[float, float]:
    """Return the least and the largest value with a margin, a share of their distance."""
    low, high = min(float(v.min()) for v in values), max(float(v.max()) for v in values)
    width = high - low
    if width <= 1e-9 * max(abs(low), abs(high), 1e-9):
        width = 0.1 * max(abs(high), 1.0)
        return low - 0.5 * width, high + 0.5 * width
    return low - margin * width, high + margin * width


def _ticks(low: float, high: float) -> list[tuple[float, str]]:
    """Return round values between two limits with their texts."""
    rough = (high - low) / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in STEPS if power * factor >= rough)
    first, last = math.ceil(low / step), math.floor(high / step)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9) + (round(step / power, 6) == 2.5))
    return [(k * step, f"{k * step + 0.0:,.{decimals}f}") for k in range(first, last + 1)]
