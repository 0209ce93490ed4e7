"""Augmentation of batches, compared with Pillow image by image; and which image gets which operation."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from ltpipe.interface.phases import Augment
from ltpipe.training.augment import operations
from ltpipe.training.augment.batch import augment_batch


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def pixels():
    """Images of noise, of narrow ranges and of smooth gradients, and a constant one; height and width differ."""
    g = generator()
    x = torch.randint(0, 256, (24, 15, 17, 3), generator=g, dtype=torch.uint8)
    x[:6] = x[:6] // 5 + 40
    smooth = torch.nn.functional.interpolate(255 * torch.rand(6, 3, 3, 3, generator=g), (15, 17), mode="bilinear")
    x[6:12] = smooth.permute(0, 2, 3, 1).to(torch.uint8)
    x[12] = 7
    return x


def by_pillow(pixels, strengths, operation):
    """Apply Pillow's operation image by image."""
    return np.stack(
        [np.asarray(operation(Image.fromarray(x.numpy()), s.item())) for x, s in zip(pixels, strengths, strict=True)]
    )


PILLOW = {
    "colour": lambda image, s: ImageEnhance.Color(image).enhance(s),
    "contrast": lambda image, s: ImageEnhance.Contrast(image).enhance(s),
    "brightness": lambda image, s: ImageEnhance.Brightness(image).enhance(s),
    "sharpness": lambda image, s: ImageEnhance.Sharpness(image).enhance(s),
    "posterize": lambda image, s: ImageOps.posterize(image, int(4 + 2 * s)),
    "solarize": lambda image, s: ImageOps.solarize(image, 130 * s),
    "autocontrast": lambda image, s: ImageOps.autocontrast(image),
    "equalize": lambda image, s: ImageOps.equalize(image),
    "invert": lambda image, s: ImageOps.invert(image),
}


@pytest.mark.parametrize("name", PILLOW)
def test_colour_operations_equal_pillows(name, pixels):
    strengths = 0.1 + 1.8 * torch.rand(len(pixels), generator=generator(1))
    ours = {"posterize": (4 + 2 * strengths).floor(), "solarize": 130 * strengths}.get(name, strengths)
    changed = operations._FUNCTIONS[name](pixels, ours).numpy()
    assert (changed == by_pillow(pixels, strengths, PILLOW[name])).all()


@pytest.mark.parametrize("number", range(operations.GEOMETRIC))
def test_geometric_operations_equal_pillows(number, pixels):
    def move(image, s):
        if number == 4:
            return image.rotate(s, fillcolor=(operations.GREY,) * 3)
        matrix = {0: (1, s, 0, 0, 1, 0), 1: (1, 0, 0, s, 1, 0), 2: (1, 0, s * 17, 0, 1, 0), 3: (1, 0, 0, 0, 1, s * 15)}
        nearest = Image.Resampling.NEAREST
        return image.transform(image.size, Image.Transform.AFFINE, matrix[number], nearest, fillcolor=(128,) * 3)

    strengths = (torch.rand(len(pixels), generator=generator(2)) - 0.5) * (50 if number == 4 else 0.7)
    moved = operations.geometric(pixels, torch.full((len(pixels),), number), strengths).numpy()
    assert (moved != by_pillow(pixels, strengths, move)).mean() < 1e-3  # a few pixels are rounded differently


@pytest.mark.parametrize("side", [(32, 32), (15, 17), (64, 48)])
def test_rotations_equal_torchvisions_bit_for_bit(side):
    """torchvision's RandomRotation(15) of a picture: nearest pixel, black corners, the size stays."""
    turn = pytest.importorskip("torchvision.transforms.functional").rotate
    x = torch.randint(0, 256, (60, *side, 3), generator=generator(3), dtype=torch.uint8)
    degrees = 30 * torch.rand(60, generator=generator(4)) - 15
    degrees[:4] = torch.tensor([0.0, 15.0, -15.0, 90.0])
    assert (operations.rotate(x, degrees).numpy() == by_pillow(x, degrees, turn)).all()


def test_a_random_rotation_comes_after_the_flip_and_turns_to_both_sides(pixels):
    side = min(pixels.shape[1:3])
    x = pixels[:, :side, :side]
    flipped = augment_batch(x, Augment(flip=True), (g := generator(5)), side)
    degrees = torch.empty(len(x)).uniform_(-1, 1, generator=g) * 15
    assert degrees.min() < -10 and degrees.max() > 10
    turned = augment_batch(x, Augment(flip=True, rotate=15), generator(5), side)
    assert torch.equal(turned, operations.rotate(flipped, degrees)) and not torch.equal(turned, flipped)


def test_strengths_of_the_recipe():
    table = dict(zip(operations.NAMES, operations._STRENGTHS, strict=True))
    assert table["shear_x"][9] == pytest.approx(0.3) and table["translate_y"][9] == pytest.approx(150 / 331)
    assert table["posterize"] == [8, 8, 7, 7, 6, 6, 5, 5, 4, 4]
    assert table["solarize"][0] == 256 and table["solarize"][9] == 0
    assert len(operations.CIFAR10) == 25 and table.keys() >= {name for pair in operations.CIFAR10 for name, *_ in pair}


def test_each_image_gets_its_own_operation(pixels):
    """In a batch with mixed operations, every image is the same as in a batch where only it has an operation."""
    count = len(operations.NAMES)
    batch, operation = pixels[8:9].expand(count + 1, -1, -1, -1), torch.arange(-1, count)
    mixed = operations.apply_operations(batch, operation, torch.full((count + 1,), 5), generator())
    assert torch.equal(mixed[0], pixels[8])
    for row in range(count + 1):
        alone = torch.where(torch.arange(count + 1) == row, operation, -1)
        changed = operations.apply_operations(batch, alone, torch.full((count + 1,), 5), generator())
        assert torch.equal(changed[row], mixed[row])
        assert (changed[torch.arange(count + 1) != row] == pixels[8]).all()
    assert (
        len({tuple(image.flatten().tolist()) for image in mixed}) >= count - 1
    )  # the cutout of this level is too small to hide a pixel


@pytest.mark.parametrize(
    "augment", [{"randaug": True}, {"autoaugment": True, "cutout": 6}, {"crop": 2, "flip": True}, {"rotate": 15}]
)
def test_augmentation_depends_only_on_the_generator(augment, pixels):
    augment, side = Augment(**augment), min(pixels.shape[1:3])
    pixels = pixels[:, :side, :side]
    first = augment_batch(pixels, augment, generator(5), side)
    assert first.dtype == torch.uint8 and first.shape == pixels.shape
    assert torch.equal(first, augment_batch(pixels, augment, generator(5), side))
    assert not torch.equal(first, augment_batch(pixels, augment, generator(6), side))


def test_no_augmentation_changes_nothing(pixels):
    side = min(pixels.shape[1:3])
    pixels = pixels[:, :side, :side]
    assert torch.equal(augment_batch(pixels, Augment(), generator(), side), pixels)


def test_cutout_hides_one_square():
    x = torch.full((50, 20, 20, 3), 200, dtype=torch.uint8)
    black = (augment_batch(x, Augment(cutout=6), generator(), x.shape[1]) == 0).all(dim=3)
    hidden = black.sum(dim=(1, 2))
    assert hidden.max() == 36 and hidden.min() >= 9  # a centre in a corner leaves a quarter
    assert (black.any(2).sum(1) * black.any(1).sum(1) == hidden).all()  # a rectangle


def test_half_of_the_drawn_operations_are_not_applied():
    x = torch.randint(0, 256, (4000, 4, 4, 3), generator=generator(), dtype=torch.uint8)
    same = (operations.randaug(x, generator(3)) == x).flatten(1).all(1).double().mean()
    assert 0.25 < same < 0.45  # 1/4, plus operations that change nothing in so small an image
