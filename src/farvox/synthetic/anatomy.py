"""The phantom's abdomen: shapes, positions and intensities, and how both vary from patient to patient."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from farvox.labels import LabelTable
from farvox.synthetic.shapes import barrel, ellipsoid, intersection, smooth_field, union, vessel
from farvox.types import FloatArray

PHANTOM_LABELS = LabelTable.from_mapping(
    {1: "liver", 2: "spleen", 3: "right kidney", 4: "left kidney", 5: "aorta", 6: "stomach", 7: "gallbladder"}
)
"""Label values of the phantoms; the two kidneys differ in position only."""

FAT, BONE, LUNG, GAS = -100.0, 230.0, -820.0, -750.0  # HU


@dataclass(frozen=True)
class Layer:
    """One tissue, painted over what came before.

    Args:
        distance: (N,) mm, negative inside.
        hu: Intensity, one for all or (N,), HU.
        texture: Standard deviation of the tissue's own pattern, HU.
        label: Value in the label map; 0 for anatomy without a label.
    """

    distance: FloatArray
    hu: FloatArray | float
    texture: float = 6.0
    label: int = 0


def abdomen(points: FloatArray, rng: np.random.Generator) -> Iterator[Layer]:
    """Draw a patient and yield its tissues back to front.

    The patient is upright around the origin: x right, y anterior, z superior, about ±135 × ±98 mm wide, the
    diaphragm near z = 90. Soft tissues share one narrow range of HU, so that position, shape and surroundings
    distinguish them rather than brightness.

    Args:
        points: (3, N) float32, mm, in patient coordinates.
        rng: Source of all variation.
    """
    soft = rng.uniform(55, 75)
    width, depth, fat = rng.uniform(128, 138), rng.uniform(92, 100), rng.uniform(9, 17)
    skin = barrel(points, width, depth)
    inner = skin + fat + rng.uniform(11, 14)
    dome = _diaphragm(points, rng)
    cavity = intersection(inner, dome)

    yield Layer(skin, FAT, 8)
    yield from _wall(points, rng, skin + fat, inner, soft)
    yield Layer(inner, FAT, 8)
    yield Layer(intersection(inner + 3, -dome), LUNG, 40)
    yield from _bowel(points, rng, cavity + 5, soft)
    yield from _spine(points, rng, soft)
    yield from _organs(points, rng, cavity + 3, soft)


def _diaphragm(points: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Dome over the abdomen, continued straight down; lungs fill the chest above it."""
    base = rng.uniform(8, 22)
    lifted = np.stack([points[0], points[1], np.maximum(points[2], base)])
    return ellipsoid(lifted, np.array([0, 2, base]), np.array([122, 88, rng.uniform(70, 80)]))


def _wall(
    points: FloatArray, rng: np.random.Generator, outer: FloatArray, inner: FloatArray, soft: float
) -> Iterator[Layer]:
    """Muscle between subcutaneous and visceral fat, and ribs in its upper part."""
    yield Layer(outer, soft + rng.uniform(-8, 4), 11)
    _, y, z = points
    phase = rng.uniform(0, 2 * np.pi)
    middle = np.abs((outer + inner) / 2) - 4
    bands = 4 * (0.45 - np.sin((z + 0.45 * y) * (2 * np.pi / 31) + phase))
    yield Layer(intersection(middle, bands, -25 - z), BONE, 25)


def _spine(points: FloatArray, rng: np.random.Generator, soft: float) -> Iterator[Layer]:
    """Back and psoas muscles, vertebrae with discs, and the spinal canal."""
    muscle = soft + rng.uniform(-8, 4)
    column = np.inf
    for side in (-1, 1):
        yield Layer(ellipsoid(points, np.array([side * 29, -66, 0]), np.array([25, 14, column])), muscle, 11)
        yield Layer(ellipsoid(points, np.array([side * 33, -38, -95]), np.array([15, 14, 90])), muscle, 9)
    phase = rng.uniform(0, 2 * np.pi)
    disc = np.cos(points[2] * (2 * np.pi / 36) + phase) > 0.8
    body = ellipsoid(points, np.array([0, -42, 0]), np.array([20, 15, column]))
    marrow = np.where(disc, soft + 25, np.where(body > -4, BONE, 150)).astype(np.float32)
    yield Layer(ellipsoid(points, np.array([0, -66, 0]), np.array([17, 12, column])), np.where(disc, soft, BONE), 20)
    yield Layer(ellipsoid(points, np.array([0, -78, 0]), np.array([4, 11, column])), np.where(disc, soft, BONE), 20)
    yield Layer(ellipsoid(points, np.array([0, -63, 0]), np.array([8, 7, column])), 25.0)
    yield Layer(body, marrow, 20)


def _bowel(points: FloatArray, rng: np.random.Generator, cavity: FloatArray, soft: float) -> Iterator[Layer]:
    """Loops with contents of every brightness the organs have, some gas."""
    _, y, z = points
    loops = -9 * smooth_field(points, rng, 62)
    hu = soft + 5 + 32 * smooth_field(points, rng, 90)
    lumen = intersection(loops, cavity, z - 12, -22 - y)
    yield Layer(lumen, hu, 12)
    yield Layer(intersection(lumen + 5, 4 * (1.1 - smooth_field(points, rng, 80))), GAS, 60)


def _organs(points: FloatArray, rng: np.random.Generator, cavity: FloatArray, soft: float) -> Iterator[Layer]:
    """The labelled organs, each in a thin coat of fat where it does not grow onto its neighbour."""
    value = {name: value for _, value, name in PHANTOM_LABELS.foreground}
    blood = soft + rng.uniform(65, 110)

    stomach, contents = _stomach(points, rng, cavity, soft)
    yield from _coated(stomach, contents, 14, value["stomach"])

    spleen = _blob(points, rng, (-77, -20, 40), (27, 41, 38), (15, 0, -20))
    hollow = _blob(points, rng, (-42, -6, 38), (26, 32, 30), (0, 0, 0))
    yield from _coated(intersection(spleen, -hollow, cavity), soft + rng.uniform(15, 45), 6, value["spleen"])

    right_lobe = _blob(points, rng, (52, 8, 32), (58, 64, 62), (0, 12, 0))
    left_lobe = _blob(points, rng, (0, 40, 50), (58, 29, 27), (0, 10, 0))
    liver = intersection(union(right_lobe, left_lobe, rounding=20), cavity)
    yield from _coated(liver, soft + rng.uniform(0, 30), 8, value["liver"])

    gallbladder = _blob(points, rng, (38, 40, -14), (13, 22, 15), (30, 0, 0), wander=3)
    yield Layer(intersection(gallbladder, cavity), rng.uniform(-5, 15), 4, value["gallbladder"])

    kidneys = soft + rng.uniform(30, 65)
    for name, side, height in (("right kidney", 1, -22), ("left kidney", -1, -10)):
        bean = _blob(points, rng, (side * 55, -33, height), (23, 19, 45), (8, side * -12, side * 20))
        hilum = _blob(points, rng, (side * 33, -25, height), (13, 11, 14), (0, 0, 0), wander=2)
        kidney = intersection(bean, -hilum)
        cortex = kidneys + 14 * np.clip(1.4 + kidney / 8, 0, 1)
        yield from _coated(kidney, cortex, 9, value[name])

    heights = np.linspace(-150, 150, 6)
    for x, y, radius, hu, label in (
        (17, -16, rng.uniform(7, 9), blood - rng.uniform(15, 45), 0),
        (-9, -18, rng.uniform(5.7, 6.0), blood, value["aorta"]),
    ):
        bends = rng.uniform(-1, 1, (6, 2)) * (6, 4)
        yield from _coated(
            vessel(points, np.column_stack([x + bends[:, 0], y + bends[:, 1], heights]), radius), hu, 5, label
        )


def _stomach(
    points: FloatArray, rng: np.random.Generator, cavity: FloatArray, soft: float
) -> tuple[FloatArray, FloatArray]:
    """Distance and intensity: a wall around mottled contents, gas where it collects in a supine patient."""
    fundus = _blob(points, rng, (-46, 14, 46), (31, 34, 34), (0, 0, 0))
    corpus = _blob(points, rng, (-36, 34, 16), (23, 21, 33), (0, -25, 0))
    antrum = _blob(points, rng, (-4, 42, -6), (30, 17, 16), (0, 0, 0))
    distance = intersection(union(fundus, corpus, antrum, rounding=14), cavity)
    contents = soft + rng.uniform(-30, 0) + 10 * smooth_field(points, rng, 45)
    gas = (points[1] > rng.uniform(42, 58)) & (distance < -5)
    return distance, np.where(gas, GAS, np.where(distance > -5, soft, contents)).astype(np.float32)


def _coated(distance: FloatArray, hu: FloatArray | float, texture: float, label: int) -> Iterator[Layer]:
    yield Layer(distance - 4, FAT, 8)
    yield Layer(distance, hu, texture, label)


def _blob(
    points: FloatArray,
    rng: np.random.Generator,
    centre: Sequence[float],
    radii: Sequence[float],
    degrees: Sequence[float],
    wander: float = 4.0,
) -> FloatArray:
    """Ellipsoid whose position (± `wander` mm), size (± 10 %) and tilt (± 8°) differ between patients."""
    return ellipsoid(
        points,
        np.asarray(centre) + rng.uniform(-wander, wander, 3),
        np.asarray(radii) * rng.uniform(0.9, 1.1, 3),
        np.asarray(degrees) + rng.uniform(-8, 8, 3),
    )
