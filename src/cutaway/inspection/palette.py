"""Colours, computed rather than listed: ramps with even steps of lightness in OKLab, so that equal steps look equal.

OKLab: Björn Ottosson, "A perceptual color space for image processing" (2020). One set of ramps serves the static pictures
and the pages, so both show a weight in the same colour.
"""

from __future__ import annotations

from functools import cache
from typing import Literal

import numpy as np

Theme = Literal["light", "dark"]
STOPS = 33  # colours between two stops are interpolated; finer is invisible

# After Okabe and Ito, "Color Universal Design" (2008), without the yellow and black that vanish on light and dark paper.
HEADS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#56b4e9",
    "#e69f00",
    "#8f6fd1",
    "#7a8a00",
    "#2fa8bd",
    "#b3446c",
    "#8f6b3d",
    "#8a929c",
)

PAPER = {"light": "#ffffff", "dark": "#14171c"}
INK = {"light": "#1b1f24", "dark": "#e8eaed"}
FAINT = {"light": "#5b6470", "dark": "#a0a8b3"}
RULE = {"light": "#d5d9df", "dark": "#3a414b"}
ACCENT = {"light": "#1f5fae", "dark": "#7db4f5"}


def _hex(lightness: np.ndarray, chroma: np.ndarray, hue: np.ndarray) -> tuple[str, ...]:
    """OKLCH (hue in degrees) to sRGB hex strings, colours out of gamut clipped."""
    a, b = chroma * np.cos(np.radians(hue)), chroma * np.sin(np.radians(hue))
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    middle = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = np.stack(
        [
            4.0767416621 * long - 3.3077115913 * middle + 0.2309699292 * short,
            -1.2684380046 * long + 2.6097574011 * middle - 0.3413193965 * short,
            -0.0041960863 * long - 0.7034186147 * middle + 1.7076147010 * short,
        ],
        axis=-1,
    ).clip(0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return tuple("#" + bytes(np.rint(255 * colour).astype(np.uint8)).hex() for colour in encoded)


@cache
def sequential(theme: Theme = "light") -> tuple[str, ...]:
    """From (almost) paper for zero to the strongest contrast for one: pale green, teal, indigo; reversed on dark paper."""
    t = np.linspace(0, 1, STOPS)
    bump = np.sin(np.pi * t)
    if theme == "light":
        return _hex(0.98 - 0.71 * t, 0.006 + 0.088 * bump + 0.085 * t**1.5, 130 + 145 * t**0.75)
    return _hex(0.235 + 0.725 * t, 0.02 + 0.11 * bump + 0.03 * t, 280 - 165 * t**1.1)


@cache
def diverging(theme: Theme = "light") -> tuple[str, ...]:
    """From blue (negative) through paper (zero) to orange (positive), alike in lightness on both sides."""
    t = np.linspace(-1, 1, STOPS)
    strength = np.abs(t)
    hue = np.where(t < 0, 255.0, 48.0)
    if theme == "light":
        return _hex(0.975 - 0.52 * strength, 0.004 + 0.14 * strength**0.85, hue)
    return _hex(0.235 + 0.55 * strength, 0.01 + 0.13 * strength**0.85, hue)


def head_colour(head: int) -> str:
    """The colour of a head; after twelve heads the colours start again (labels, not colours alone, name a head)."""
    return HEADS[head % len(HEADS)]
