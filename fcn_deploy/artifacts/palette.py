"""Default colours of classes."""

from __future__ import annotations

Rgb = tuple[int, int, int]


def default_palette(num_classes: int) -> tuple[Rgb, ...]:
    """Returns the PASCAL VOC colour map for `num_classes` classes.

    The bits of the class index are dealt to R, G and B from the most significant bit down, as `VOClabelcolormap`
    of the VOC development kit does (http://host.robots.ox.ac.uk/pascal/VOC/voc2012/).
    """
    return tuple(_voc_color(index) for index in range(num_classes))


def _voc_color(index: int) -> Rgb:
    red = green = blue = 0
    for bit in range(8):
        red |= (index >> (3 * bit) & 1) << (7 - bit)
        green |= (index >> (3 * bit + 1) & 1) << (7 - bit)
        blue |= (index >> (3 * bit + 2) & 1) << (7 - bit)
    return red, green, blue
