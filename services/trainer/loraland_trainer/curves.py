"""The curves of a training as one picture: loss, learning rate, gradient norm, speed.

Drawn with Pillow, a tenth of the size of a plotting library in the trainer's image.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

PANEL_WIDTH, PANEL_HEIGHT = 600, 380
LEFT, RIGHT, TOP, BOTTOM = 76, 16, 40, 36
PAPER, INK, GRID = "#ffffff", "#202020", "#dddddd"
FAINT, STRONG, HELD_OUT = "#9ec1e6", "#1f5fa8", "#c0392b"
NUM_TICKS = 5
# A curve is drawn through the means of this share of its points.
SMOOTHED_SHARE = 0.05
Point = tuple[float, float]
PANELS = (
    ("loss", "loss (held-out rows in red)"),
    ("learningRate", "learning rate"),
    ("gradientNorm", "gradient norm"),
    ("tokensPerSecond", "tokens a second, padding not counted"),
)


def draw(steps: Sequence[dict[str, Any]], path: Path) -> None:
    """Write the picture as PNG; a panel without numbers stays empty."""
    image = Image.new("RGB", (2 * PANEL_WIDTH, 2 * PANEL_HEIGHT), PAPER)
    pen = ImageDraw.Draw(image)
    for place, (name, title) in enumerate(PANELS):
        corner = (place % 2 * PANEL_WIDTH, place // 2 * PANEL_HEIGHT)
        held_out = points(steps, "heldOutLoss") if name == "loss" else []
        _Panel(pen, corner).draw(title, points(steps, name), held_out)
    image.save(path, format="PNG", optimize=True)


def points(steps: Sequence[dict[str, Any]], name: str) -> list[Point]:
    """Return step and value of every entry that has a finite one."""
    found = [(float(e["step"]), float(e[name])) for e in steps if e.get(name) is not None]
    return [point for point in found if math.isfinite(point[1])]


def smoothed(curve: Sequence[Point]) -> list[Point]:
    """Return the running mean over the points just before, so many that noise goes."""
    window = max(1, round(len(curve) * SMOOTHED_SHARE))
    total = 0.0
    means = []
    for place, (step, value) in enumerate(curve):
        total += value - (curve[place - window][1] if place >= window else 0.0)
        means.append((step, total / min(place + 1, window)))
    return means


class _Panel:
    """One pair of axes."""

    def __init__(self, pen: ImageDraw.ImageDraw, corner: tuple[int, int]) -> None:
        self._pen = pen
        self._left, self._top = corner[0] + LEFT, corner[1] + TOP
        self._right = corner[0] + PANEL_WIDTH - RIGHT
        self._bottom = corner[1] + PANEL_HEIGHT - BOTTOM
        self._font = ImageFont.load_default(13)
        self._x = self._y = (0.0, 1.0)

    def draw(self, title: str, curve: Sequence[Point], marks: Sequence[Point]) -> None:
        self._pen.text((self._left, self._top - 26), title, fill=INK, font=self._font)
        everything = [*curve, *marks]
        if not everything:
            return
        self._x = _span([x for x, _ in everything])
        self._y = _span([y for _, y in everything])
        self._draw_grid()
        self._pen.line([self._place(p) for p in curve], fill=FAINT, width=1)
        self._pen.line([self._place(p) for p in smoothed(curve)], fill=STRONG, width=2)
        for mark in marks:
            x, y = self._place(mark)
            self._pen.ellipse((x - 3, y - 3, x + 3, y + 3), fill=HELD_OUT)

    def _draw_grid(self) -> None:
        for tick in range(NUM_TICKS):
            share = tick / (NUM_TICKS - 1)
            y = self._bottom - share * (self._bottom - self._top)
            self._pen.line((self._left, y, self._right, y), fill=GRID)
            text = f"{self._y[0] + share * (self._y[1] - self._y[0]):.3g}"
            self._pen.text((self._left - 6, y), text, fill=INK, font=self._font, anchor="rm")
            x = self._left + share * (self._right - self._left)
            text = f"{self._x[0] + share * (self._x[1] - self._x[0]):.0f}"
            self._pen.text((x, self._bottom + 6), text, fill=INK, font=self._font, anchor="mt")

    def _place(self, point: Point) -> Point:
        """Return the pixel of a point."""
        across = (point[0] - self._x[0]) / (self._x[1] - self._x[0])
        up = (point[1] - self._y[0]) / (self._y[1] - self._y[0])
        return (
            self._left + across * (self._right - self._left),
            self._bottom - up * (self._bottom - self._top),
        )


def _span(values: Sequence[float]) -> tuple[float, float]:
    """Return lowest and highest value, never the same."""
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)
