"""RandAugment, AutoAugment and Cutout for batches of uint8 images on the device; each image has its own operations.

The 15 operations of Xie et al., 2020 (UDA) with the ranges of Cubuk et al., CVPR 2019, as in the package randaugment
1.0.2 of the GLT recipe: at level m of 0..9 shear 0.3 m/9, translation 150/331 m/9 of the side, rotation 30 m/9 degrees,
enhancement 1 +- 0.9 m/9 (colour, contrast, brightness, sharpness), posterize 8 to 4 bits, solarize 256 (1 - m/9),
cutout of 20/112 m/9 of the side (20 pixels at the recipe's 112); autocontrast, equalize and invert have no level. Signs
are random. Pillow's integer arithmetic is reproduced. Three things differ from the package: shears take the nearest
pixel instead of a bicubic interpolation, rotations have a random sign, and areas without a source (from outside the
image, or cut out) are grey (128).

Images are grouped by operation: one call for all images that drew an operation, and one call for all five geometric
operations. Images: B x H x W x 3.
"""

from collections.abc import Callable

import torch
from torch import Tensor

NAMES = (
    *("shear_x", "shear_y", "translate_x", "translate_y", "rotate"),
    *("colour", "contrast", "brightness", "sharpness"),
    *("posterize", "solarize", "autocontrast", "equalize", "invert", "cutout"),
)
GREY = 128
# Indices into NAMES: those below GEOMETRIC move pixels, those below SIGNED have a strength with a random sign.
GEOMETRIC, SIGNED, CUTOUT = 5, 9, 14

# The CIFAR-10 policy of Cubuk et al., CVPR 2019, table 7: sub-policies of two (operation, probability, level).
CIFAR10 = (
    (("invert", 0.1, 7), ("contrast", 0.2, 6)),
    (("rotate", 0.7, 2), ("translate_x", 0.3, 9)),
    (("sharpness", 0.8, 1), ("sharpness", 0.9, 3)),
    (("shear_y", 0.5, 8), ("translate_y", 0.7, 9)),
    (("autocontrast", 0.5, 8), ("equalize", 0.9, 2)),
    (("shear_y", 0.2, 7), ("posterize", 0.3, 7)),
    (("colour", 0.4, 3), ("brightness", 0.6, 7)),
    (("sharpness", 0.3, 9), ("brightness", 0.7, 9)),
    (("equalize", 0.6, 5), ("equalize", 0.5, 1)),
    (("contrast", 0.6, 7), ("sharpness", 0.6, 5)),
    (("colour", 0.7, 7), ("translate_x", 0.5, 8)),
    (("equalize", 0.3, 7), ("autocontrast", 0.4, 8)),
    (("translate_y", 0.4, 3), ("sharpness", 0.2, 6)),
    (("brightness", 0.9, 6), ("colour", 0.2, 8)),
    (("solarize", 0.5, 2), ("invert", 0.0, 3)),
    (("equalize", 0.2, 0), ("autocontrast", 0.6, 0)),
    (("equalize", 0.2, 8), ("equalize", 0.6, 4)),
    (("colour", 0.9, 9), ("equalize", 0.6, 6)),
    (("autocontrast", 0.8, 4), ("solarize", 0.2, 8)),
    (("brightness", 0.1, 3), ("colour", 0.7, 0)),
    (("solarize", 0.4, 5), ("autocontrast", 0.9, 3)),
    (("translate_y", 0.9, 9), ("translate_y", 0.7, 9)),
    (("autocontrast", 0.9, 2), ("solarize", 0.8, 3)),
    (("equalize", 0.8, 8), ("invert", 0.1, 3)),
    (("translate_y", 0.7, 9), ("autocontrast", 0.9, 1)),
)


def randaug(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Draw two of the 15 operations for each image, with levels of 1..9; apply each with probability 1/2."""
    shape, device = (2, len(pixels)), pixels.device
    operations = torch.randint(len(NAMES), shape, generator=generator, device=device)
    levels = torch.randint(1, 10, shape, generator=generator, device=device)
    return _apply_with_chance(pixels, operations, levels, torch.full(shape, 0.5, device=device), generator)


def autoaugment(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Apply a random one of the 25 sub-policies of CIFAR10 to each image."""
    table = torch.tensor([[(NAMES.index(name), chance, level) for name, chance, level in pair] for pair in CIFAR10])
    chosen = torch.randint(len(CIFAR10), (len(pixels),), generator=generator, device=pixels.device)
    operations, chances, levels = table.to(pixels.device)[chosen].unbind(dim=2)
    return _apply_with_chance(pixels, operations.T.long(), levels.T.long(), chances.T, generator)


def _apply_with_chance(
    pixels: Tensor, operations: Tensor, levels: Tensor, chances: Tensor, generator: torch.Generator
) -> Tensor:
    """Apply two operations after each other, each with its probability; operations, levels, chances: 2 x B."""
    for operation, level, chance in zip(operations, levels, chances, strict=True):
        drawn = torch.rand(len(pixels), generator=generator, device=pixels.device)
        pixels = apply_operations(pixels, torch.where(drawn < chance, operation, -1), level, generator)
    return pixels


def apply_operations(pixels: Tensor, operation: Tensor, level: Tensor, generator: torch.Generator) -> Tensor:
    """Return a copy in which each image has undergone its operation.

    operation: index into NAMES, or -1 for none; B. level: 0..9; B.
    """
    count, device = len(pixels), pixels.device
    # Signs and places are drawn for every image, used or not, so that the generator always advances equally.
    sign = torch.randint(0, 2, (count,), generator=generator, device=device) * 2 - 1
    place = torch.rand(2, count, generator=generator, device=device)
    strength = torch.tensor(_STRENGTHS, device=device)[operation.clamp(min=0), level]
    # Enhancements blend with a factor around 1; geometric operations go left or right by the strength itself.
    strength = torch.where((operation >= GEOMETRIC) & (operation < SIGNED), 1 + sign * strength, strength)
    strength = torch.where(operation < GEOMETRIC, sign * strength, strength)
    result = pixels.clone()
    # All geometric operations become one group. A single tolist(), because each one waits for the device.
    groups = operation.clamp(min=GEOMETRIC - 1).where(operation >= 0, -1).tolist()
    for number in sorted(set(groups) - {-1}):
        rows = torch.tensor([row for row, group in enumerate(groups) if group == number], device=device)
        if number < GEOMETRIC:
            result[rows] = geometric(pixels[rows], operation[rows], strength[rows])
        elif number == CUTOUT:
            result[rows] = cutout(pixels[rows], strength[rows] * pixels.shape[1], place[:, rows], GREY)
        else:
            result[rows] = _FUNCTIONS[NAMES[number]](pixels[rows], strength[rows])
    return result


def geometric(pixels: Tensor, operation: Tensor, strength: Tensor) -> Tensor:
    """Shear (with the corner fixed), translate or rotate images; pixels are the nearest ones of the source.

    operation: index into NAMES below GEOMETRIC; B. strength: shear factor, share of the side, or degrees; B.
    """
    count, height, width, _ = pixels.shape
    angle = torch.deg2rad(torch.where(operation == 4, strength, 0.0))
    shear_x, shear_y, move_x, move_y = (torch.where(operation == n, strength, 0.0) for n in range(4))
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    x, y = (x + 0.5).to(pixels.device) - width / 2, (y + 0.5).to(pixels.device) - height / 2
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    # The source of each pixel: the rotation's origin is the middle of the image, the shears' origin is its corner.
    source_x = cos * x - sin * y + width / 2 + (shear_x[:, None, None] * (y + height / 2))
    source_y = sin * x + cos * y + height / 2 + (shear_y[:, None, None] * (x + width / 2))
    column = (source_x + (move_x * width)[:, None, None]).floor().long()
    row = (source_y + (move_y * height)[:, None, None]).floor().long()
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    images = torch.arange(count, device=pixels.device)[:, None, None]
    moved = pixels[images, row.clamp(0, height - 1), column.clamp(0, width - 1)]
    return torch.where(inside[..., None], moved, GREY)


def rotate(pixels: Tensor, degrees: Tensor) -> Tensor:
    """Rotate images around their middle, counter-clockwise; nearest pixel, black where there is none. degrees: B.

    Equal to Pillow's rotation bit for bit (and so to torchvision's of a picture): coordinates have 16 binary places.
    """
    count, height, width, _ = pixels.shape
    angle = torch.deg2rad(degrees.double())
    cos, sin = (torch.round(value, decimals=15) for value in (angle.cos(), angle.sin()))
    # source = (cos -sin; sin cos) (target - middle) + middle, where pixels have their middle at 1/2
    left = width / 2 - cos * (width / 2) + sin * (height / 2) + (cos - sin) / 2
    top = height / 2 - sin * (width / 2) - cos * (height / 2) + (sin + cos) / 2
    left, top, cos, sin = ((value * 65536 + 0.5).floor().long()[:, None, None] for value in (left, top, cos, sin))
    y, x = torch.arange(height, device=pixels.device)[:, None], torch.arange(width, device=pixels.device)
    column, row = (left + cos * x - sin * y) >> 16, (top + sin * x + cos * y) >> 16
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    images = torch.arange(count, device=pixels.device)[:, None, None]
    return torch.where(inside[..., None], pixels[images, row.clamp(0, height - 1), column.clamp(0, width - 1)], 0)


def cutout(pixels: Tensor, side: Tensor, place: Tensor, fill: int) -> Tensor:
    """Cover a square with `fill`, cut off at the border of the image (DeVries and Taylor, 2017).

    side: of the square in pixels; B. place: of its centre, as a share of height and width, in 0..1; 2 x B.
    """
    _, height, width, _ = pixels.shape
    half = (side / 2).floor()
    hidden = _is_near(place[0], half, height)[:, :, None] & _is_near(place[1], half, width)[:, None, :]
    return torch.where(hidden[..., None], fill, pixels)


def _is_near(place: Tensor, half: Tensor, size: int) -> Tensor:
    """Tell for which positions p of 0..size-1 centre - half <= p < centre + half; bool, B x size."""
    centre = (place * size).floor()
    position = torch.arange(size, device=place.device)
    return (position >= (centre - half)[:, None]) & (position < (centre + half)[:, None])


def luma(pixels: Tensor) -> Tensor:
    """Return the ITU-R 601-2 luma (grey value), rounded as Pillow does; B x H x W, int64."""
    weights = torch.tensor([19595, 38470, 7471], device=pixels.device)
    return ((pixels.long() * weights).sum(dim=3) + 0x8000) >> 16


def blend(dull: Tensor, pixels: Tensor, factor: Tensor) -> Tensor:
    """Return dull + factor (pixels - dull), limited to 0..255 and truncated to integers. factor: B."""
    base = dull.float()
    return (base + factor[:, None, None, None] * (pixels.float() - base)).clamp(0, 255).to(torch.uint8)


def colour(pixels: Tensor, factor: Tensor) -> Tensor:
    """Move colours away from grey (factor > 1) or towards it."""
    return blend(luma(pixels)[..., None], pixels, factor)


def contrast(pixels: Tensor, factor: Tensor) -> Tensor:
    """Move colours away from the image's mean grey (factor > 1) or towards it."""
    mean = (luma(pixels).double().mean(dim=(1, 2)) + 0.5).floor()
    return blend(mean[:, None, None, None], pixels, factor)


def brightness(pixels: Tensor, factor: Tensor) -> Tensor:
    """Move colours away from black (factor > 1) or towards it."""
    return blend(torch.zeros_like(pixels), pixels, factor)


def sharpness(pixels: Tensor, factor: Tensor) -> Tensor:
    """Move away from the smoothed image (factor > 1) or towards it.

    The kernel is 3 x 3 ones with 5 in the middle; pixels at the border are not smoothed.
    """
    image = pixels.permute(0, 3, 1, 2).long()
    total = sum(image[:, :, 1 + i : image.shape[2] - 1 + i, 1 + j : image.shape[3] - 1 + j] for i, j in _AROUND)
    smooth = image.clone()
    smooth[:, :, 1:-1, 1:-1] = (2 * (total + 4 * image[:, :, 1:-1, 1:-1]) + 13) // 26  # sum / 13, rounded
    return blend(smooth.permute(0, 2, 3, 1), pixels, factor)


def posterize(pixels: Tensor, bits: Tensor) -> Tensor:
    """Keep only the highest `bits` bits of each value. bits: B."""
    return pixels & (256 - 2 ** (8 - bits.long()))[:, None, None, None].to(torch.uint8)


def solarize(pixels: Tensor, threshold: Tensor) -> Tensor:
    """Invert values that are not below the threshold. threshold: B."""
    return torch.where(pixels < threshold[:, None, None, None], pixels, 255 - pixels)


def autocontrast(pixels: Tensor, _: Tensor) -> Tensor:
    """Stretch each channel to 0..255; a channel with a single value stays."""
    values = pixels.double()
    low, high = values.amin(dim=(1, 2), keepdim=True), values.amax(dim=(1, 2), keepdim=True)
    # A tensor of 255, because torch computes 255 / tensor as a product with the reciprocal, which rounds differently.
    scale = torch.full_like(low, 255) / (high - low).clamp(min=1)
    stretched = (values * scale + -low * scale).clamp(0, 255).to(torch.uint8)
    return torch.where(high > low, stretched, pixels)


def equalize(pixels: Tensor, _: Tensor) -> Tensor:
    """Make the histogram of each channel flat, by Pillow's integer look-up table."""
    count = len(pixels)
    # A single bincount for all channels of all images: channel k counts its values in the slots 256 k to 256 k + 255.
    owner = torch.arange(3 * count, device=pixels.device).reshape(count, 1, 1, 3) * 256
    slots = owner + pixels
    histogram = torch.bincount(slots.flatten(), minlength=3 * count * 256).reshape(-1, 256)
    levels = torch.arange(256, device=pixels.device)
    last = torch.where(histogram > 0, levels, 0).amax(dim=1, keepdim=True)
    step = (histogram.sum(dim=1, keepdim=True) - histogram.gather(1, last)) // 255
    before = histogram.cumsum(dim=1) - histogram
    flat = ((step // 2 + before) // step.clamp(min=1)).clamp(max=255)
    return torch.where(step > 0, flat, levels).flatten()[slots].to(torch.uint8)


def invert(pixels: Tensor, _: Tensor) -> Tensor:
    """Return 255 - value."""
    return 255 - pixels


_AROUND = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
_FUNCTIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    function.__name__: function
    for function in (colour, contrast, brightness, sharpness, posterize, solarize, autocontrast, equalize, invert)
}
# The strength of each operation of NAMES at the levels 0..9.
_STRENGTHS = [
    *[[0.3 * m / 9 for m in range(10)]] * 2,
    *[[150 / 331 * m / 9 for m in range(10)]] * 2,
    [30 * m / 9 for m in range(10)],
    *[[0.9 * m / 9 for m in range(10)]] * 4,
    [float(round(8 - 4 * m / 9)) for m in range(10)],
    [256 * (1 - m / 9) for m in range(10)],
    *[[0.0] * 10] * 3,
    [20 / 112 * m / 9 for m in range(10)],
]
