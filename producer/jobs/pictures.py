"""A Mandelbrot result as pictures: the image, and the same with each tile in the colour of who drew it."""

from __future__ import annotations

import colorsys
from base64 import b64decode
from collections.abc import Mapping
from typing import Any

from PIL import Image

GOLDEN = 0.618034
"""Hues this far apart, of a full turn, stay apart for any number of workers."""


def image(result: Mapping[str, Any]) -> Image.Image:
    """The image; black inside, and colours outside that repeat every 255 iterations."""
    picture = _indexed(result)
    picture.putpalette([0, 0, 0, *_spectrum()])
    return picture


def by_worker(result: Mapping[str, Any]) -> Image.Image:
    """The image in shades, each tile in the colour of the worker process that drew it."""
    shades = _indexed(result)
    picture = Image.new("RGB", shades.size)
    workers = sorted({part["who"] for part in result["tiles"]})
    colours = {who: colorsys.hsv_to_rgb(i * GOLDEN % 1.0, 0.75, 1.0) for i, who in enumerate(workers)}
    for part in result["tiles"]:
        x, y, wide, high = part["tile"]
        shade = shades.crop((x, y, x + wide, y + high)).point(_brightness()).convert("L")
        bands = [shade.point([round(level * channel) for level in range(256)]) for channel in colours[part["who"]]]
        picture.paste(Image.merge("RGB", bands), (x, y))
    return picture


def _indexed(result: Mapping[str, Any]) -> Image.Image:
    return Image.frombytes("L", (result["width"], result["height"]), b64decode(result["pixels"]))


def _spectrum() -> list[int]:
    colours = [colorsys.hsv_to_rgb((0.6 + i / 32) % 1.0, 0.8, min(1.0, 0.3 + i / 24)) for i in range(255)]
    return [round(255 * channel) for colour in colours for channel in colour]


def _brightness() -> list[int]:
    return [90, *(min(255, 130 + 5 * i) for i in range(255))]
