"""Draw the Mandelbrot set in tiles, and remember who drew which: the pool made visible.

Tiles are unequal work: those inside the set take every iteration. So workers that ask for the next tile when they are
free share the work well, and the second picture, where each tile has its worker's colour, shows it.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from typing import Any

from lab.evidence import Who
from lab.jobs.job import Arguments, Chunk, Job, Number, bounded

LEFT, WIDTH = -2.2, 3.0
LARGEST, SMALLEST, MOST_ITERATIONS, MOST_TILE = 2_000, 16, 1_000, 256


def split(width: int, height: int, tile: int, iterations: int) -> list[Chunk]:
    """Tiles as ``(x, y, tile width, tile height, image width, image height, iterations)``, in pixels."""
    return [
        (x, y, min(tile, width - x), min(tile, height - y), width, height, iterations)
        for y in range(0, height, tile)
        for x in range(0, width, tile)
    ]


def draw(x: int, y: int, wide: int, high: int, width: int, height: int, iterations: int) -> dict[str, Any]:
    """One tile.

    Returns:
        ``pixels``: base64 of a byte a pixel, row by row: 0 inside the set, else 1 to 255, which repeats, by the number of
        iterations after which the point has escaped. ``tile``: its x, y, width and height. ``who``: its worker.

    Raises:
        BadArgument: A number is out of bounds.
    """
    bounded("width", width, SMALLEST, LARGEST)
    bounded("height", height, SMALLEST, LARGEST)
    bounded("x", x, 0, width - bounded("tile width", wide, 1, MOST_TILE))
    bounded("y", y, 0, height - bounded("tile height", high, 1, MOST_TILE))
    bounded("iterations", iterations, 1, MOST_ITERATIONS)
    step = WIDTH / width
    pixels = bytes(
        _escape(complex(LEFT + column * step, (height / 2 - row) * step), iterations)
        for row in range(y, y + high)
        for column in range(x, x + wide)
    )
    return {"tile": [x, y, wide, high], "pixels": b64encode(pixels).decode(), "who": str(Who.here())}


def _escape(c: complex, iterations: int) -> int:
    z = 0j
    for n in range(iterations):
        z = z * z + c
        if z.real * z.real + z.imag * z.imag > 4.0:
            return n % 255 + 1
    return 0


def assemble(tiles: list[dict[str, Any]]) -> dict[str, Any]:
    """The image: ``width``, ``height``, ``pixels`` as in ``draw``, and of each tile its place and worker."""
    width = max(part["tile"][0] + part["tile"][2] for part in tiles)
    height = max(part["tile"][1] + part["tile"][3] for part in tiles)
    image = bytearray(width * height)
    for part in tiles:
        x, y, wide, high = part["tile"]
        pixels = b64decode(part["pixels"])
        for row in range(high):
            start = (y + row) * width + x
            image[start : start + wide] = pixels[row * wide : (row + 1) * wide]
    made = [{"tile": part["tile"], "who": part["who"]} for part in tiles]
    return {"width": width, "height": height, "pixels": b64encode(image).decode(), "tiles": made}


def show(_arguments: Arguments, result: Any) -> list[str]:
    """Size, and how many tiles each worker drew."""
    drawn: dict[str, int] = {}
    for part in result["tiles"]:
        drawn[part["who"]] = drawn.get(part["who"], 0) + 1
    lines = [f"{result['width']} x {result['height']} pixels in {len(result['tiles'])} tiles by {len(drawn)} workers"]
    return lines + [f"  {number:4} tiles  {who}" for who, number in sorted(drawn.items())]


JOB = Job(
    summary="Draw the Mandelbrot set in tiles, and who drew which.",
    parameters=(
        Number("width", 480, SMALLEST, LARGEST, "Pixels."),
        Number("height", 320, SMALLEST, LARGEST, "Pixels."),
        Number("tile", 40, SMALLEST, MOST_TILE, "Pixels of a tile's side."),
        Number("iterations", 200, 1, MOST_ITERATIONS, "After which a point counts as inside."),
    ),
    split=split,
    work=draw,
    merge=assemble,
    show=show,
    long=True,
)
