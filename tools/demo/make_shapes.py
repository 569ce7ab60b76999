"""Make the shapes data set: boxes, discs, signs on thin poles and lattices of thin lines in front of photographs.

One folder serves mmdet (COCO-format boxes and masks) and mmseg (VOC's folder layout with label images):

    OUT/JPEGImages/{train,val}_00000.jpg
    OUT/annotations/{train,val}.json              boxes, masks (uncompressed run lengths), category ids 1..4
    OUT/SegmentationClass/{train,val}_00000.png   0 background, 1..4 classes, 255 void
    OUT/ImageSets/Segmentation/{train,val}.txt

Everything is drawn four times enlarged and averaged down, so each pixel knows how much of it each object covers. A pixel is void where nothing covers
two thirds of it: a ring along every border, which leaves thin lines their label. Backgrounds are crops of the two photographs that scikit-learn
carries; train sees only their left part, val only their right part. The same seed gives the same bytes, and an image does not depend on how many
there are.

Presets: ``mixed`` has objects of all sizes and is the demos' data; ``small`` has many objects, boxes and discs 6 to 16 pixels wide and signs 10
to 16 high, which a stride of 8 or 16 nearly loses; ``thin`` has lines of 1 to 2 pixels, and stripes of 2 to 5 pixels a period on boxes and
discs, which a stride turns into false patterns.
"""

import argparse
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from rich.progress import track
from sklearn.datasets import load_sample_images

CLASSES = ('box', 'disc', 'sign', 'lattice')
PALETTE = ((0, 0, 0), (230, 80, 60), (70, 140, 230), (245, 200, 60), (90, 190, 110))  # background first
SPLITS = {'train': (0.0, 0.7), 'val': (0.7, 1.0)}  # columns of each photograph, as fractions of its width
VOID = 255
ENLARGED = 4  # drawn pixels per image pixel, each way
MIN_VISIBLE = 0.5  # an object that would leave less of an earlier one in sight is not drawn


@dataclass(frozen=True)
class Preset:
    """What :func:`draw` draws from.

    ``body`` (boxes and discs), ``sign`` and ``lattice`` are ranges of the objects' size, as a fraction of the image's edge if ``relative``, else in
    pixels; ``line`` and ``gap`` are those of poles and lattices in pixels, ``stripes`` the period of stripes on boxes and discs in pixels, or None.
    """

    objects: tuple[int, int] = (4, 10)  # from, to (exclusive)
    relative: bool = True
    body: tuple[float, float] = (0.08, 0.45)
    sign: tuple[float, float] = (0.15, 0.7)
    lattice: tuple[float, float] = (0.12, 0.5)
    line: tuple[float, float] = (1.4, 2.4)
    gap: tuple[float, float] = (5, 9)
    stripes: tuple[float, float] | None = None


PRESETS = {
    'mixed': Preset(),
    'small': Preset(objects=(10, 25), relative=False, body=(6, 16), sign=(10, 16), lattice=(8, 16), line=(1, 1.5), gap=(3, 4)),
    'thin': Preset(relative=False, body=(12, 50), sign=(30, 100), lattice=(20, 80), line=(1, 2), gap=(3, 7), stripes=(2, 5)),
}

# A shape is a list of (polygon, ink), painted in order. Polygons are centred on (0, 0); 1 is the image's edge, `pixel` one image pixel.
BODY, ACCENT, POLE, RIM = range(1, 5)


def ngon(corners, width, height, centre=(0.0, 0.0)):
    """Return a polygon that fills a width x height rectangle, a flat edge below."""
    turn = 2 * np.pi * (np.arange(corners) + 0.5) / corners
    points = np.stack([np.sin(turn), np.cos(turn)], 1)
    points -= (points.max(0) + points.min(0)) / 2
    return points * np.array([width, height]) / np.ptp(points, axis=0) + centre


def log_uniform(rng, low, high):
    """Draw a number whose logarithm is uniform, so that small sizes are as frequent as large ones."""
    return np.exp(rng.uniform(np.log(low), np.log(high)))


def size_of(rng, span, preset, pixel):
    """Draw a size from a range of a preset, as a fraction of the image's edge."""
    return log_uniform(rng, *span) * (1 if preset.relative else pixel)


def stripes(rng, shape, preset, pixel):
    """Return a shape with stripes across it where the preset has them: chords of its polygon, a line each."""
    if preset.stripes is None:
        return shape
    period = rng.uniform(*preset.stripes) * pixel
    corners = np.concatenate([shape[0][0], shape[0][0][:1]])
    bars = []
    for level in np.arange(corners[:, 1].min() + period / 2, corners[:, 1].max(), period):
        crossed = (corners[:-1, 1] - level) * (corners[1:, 1] - level) < 0
        (x0, y0), (x1, y1) = corners[:-1][crossed].T, corners[1:][crossed].T
        ends = x0 + (level - y0) / (y1 - y0) * (x1 - x0)
        bars.append((ngon(4, np.ptp(ends), period / 2, (ends.mean(), level)), ACCENT))
    return shape[:1] + bars


def box(rng, preset, pixel):
    """Return a rectangle, half of them with a band across."""
    width = size_of(rng, preset.body, preset, pixel)
    height = width * log_uniform(rng, 0.5, 2)
    shape = [(ngon(4, width, height), BODY), (ngon(4, width, height * 0.2), ACCENT)][: rng.integers(1, 3)]
    return stripes(rng, shape, preset, pixel)


def disc(rng, preset, pixel):
    """Return an ellipse that is nearly round, half of them with a smaller one inside."""
    width = size_of(rng, preset.body, preset, pixel)
    height = width * log_uniform(rng, 0.85, 1.2)
    shape = [(ngon(64, width, height), BODY), (ngon(64, width / 2, height / 2), ACCENT)][: rng.integers(1, 3)]
    return stripes(rng, shape, preset, pixel)


def sign(rng, preset, pixel):
    """Return a triangle, square, octagon or disc with a pale rim, on a thin pole."""
    height, corners = size_of(rng, preset.sign, preset, pixel), rng.choice([3, 4, 8, 64])
    plate = height * rng.uniform(0.25, 0.4)
    top = (0, (plate - height) / 2)
    pole = ngon(4, rng.uniform(*preset.line) * pixel, height - plate / 2, (0, plate / 4))
    return [(pole, POLE), (ngon(corners, plate, plate, top), RIM), (ngon(corners, plate * 0.7, plate * 0.7, top), BODY)]


def lattice(rng, preset, pixel):
    """Return two families of thin lines that cross, with what is behind in sight between them."""
    line, gap = rng.uniform(*preset.line) * pixel, rng.uniform(*preset.gap) * pixel
    columns = max(round(size_of(rng, preset.lattice, preset, pixel) / gap), 2)
    rows = max(round(columns * log_uniform(rng, 0.5, 2)), 2)
    width, height = columns * gap, rows * gap
    upright = [ngon(4, line, height + line, (x, 0)) for x in np.linspace(-width / 2, width / 2, columns + 1)]
    level = [ngon(4, width + line, line, (0, y)) for y in np.linspace(-height / 2, height / 2, rows + 1)]
    return [(bar, BODY) for bar in upright + level]


def place(rng, shape, edge):
    """Tilt a shape, put it where nearly all of it is inside, and return its inks on a canvas of ``edge`` pixels (0 where it is not)."""
    tilt = rng.normal(0, 0.15)
    rotation = np.array([[np.cos(tilt), np.sin(tilt)], [-np.sin(tilt), np.cos(tilt)]])
    shape = [(polygon @ rotation, ink) for polygon, ink in shape]
    extent = np.ptp(np.concatenate([polygon for polygon, _ in shape]), axis=0).clip(max=1)
    centre = rng.uniform(0.4 * extent, 1 - 0.4 * extent)
    inks = Image.new('L', (edge, edge))
    for polygon, ink in shape:
        ImageDraw.Draw(inks).polygon([tuple(corner) for corner in ((polygon + centre) * edge).tolist()], fill=ink)
    return np.asarray(inks)


def crop(rng, photo, low, high, width, height):
    """Cut a square of low..high pixels out of a photograph, mirror half of them, and resize."""
    side = rng.integers(low, high, endpoint=True)
    left, top = (rng.integers(extent - side, endpoint=True) for extent in photo.shape[1::-1])
    patch = photo[top : top + side, left : left + side][:, :: rng.choice([-1, 1])]
    return np.asarray(Image.fromarray(patch).resize((width, height), Image.Resampling.BICUBIC), float)


def surface(rng, photo, width, height):
    """Return brightness factors ``(height, width, 1)``: the grain of a patch of photograph under a light from one side."""
    grain = crop(rng, photo, 24, 72, width, height).mean(2)
    light = np.add.outer(np.linspace(-1, 1, height) * rng.uniform(-1, 1), np.linspace(-1, 1, width) * rng.uniform(-1, 1))
    return (1 + 0.14 * np.clip((grain - grain.mean()) / (grain.std() + 8), -2, 2) + 0.2 * light)[..., None]


def palette(rng, behind):
    """Return the colour of each ink: the body's and the pole's well apart from the colour behind, the accent's from the body's."""
    drawn = [behind]
    while len(drawn) < 3:
        hue = 0.5 + 0.5 * np.cos(rng.uniform(0, 2 * np.pi) - np.array([0, 2, 4]) * np.pi / 3)
        colour = rng.choice([100, 250]) * (0.08 + 0.92 * hue)
        if np.linalg.norm(colour - drawn[-1]) > 100:
            drawn.append(colour)
    return np.stack([*drawn, np.full(3, 30 if behind.mean() > 110 else 220), np.full(3, 240)])


def draw(rng, photo, size, preset=PRESETS['mixed']):
    """Draw one image.

    Args:
        rng: The image's random generator.
        photo: Photograph ``(H, W, 3)``, uint8, to cut background and surfaces from.
        size: Edge of the image in pixels.
        preset: What to draw.

    Returns:
        The image ``(size, size, 3)``, uint8; the share of each pixel that the background and each object cover, ``(1 + objects, size, size)``;
        the objects' classes, 1 to 4.
    """
    edge = size * ENLARGED
    canvas = crop(rng, photo, 100, 190, edge, edge) * rng.uniform(0.75, 1.1)
    owner, areas, labels = np.zeros((edge, edge), np.uint8), [], []
    for _ in range(rng.integers(*preset.objects)):
        label = rng.integers(len(CLASSES))
        inks = place(rng, (box, disc, sign, lattice)[label](rng, preset, 1 / size), edge)
        inside = inks > 0
        if np.any(np.bincount(owner[~inside], minlength=len(areas) + 1)[1:] < MIN_VISIBLE * np.array(areas)):
            continue
        rows, columns = (np.flatnonzero(inside.any(axis)) for axis in (1, 0))
        window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        painted = palette(rng, canvas[inside].mean(0))[inks[window]] * surface(rng, photo, len(columns), len(rows))
        canvas[window] = np.where(inside[window][..., None], painted, canvas[window])
        areas.append(inside.sum())
        labels.append(int(label) + 1)
        owner[inside] = len(areas)
    image = canvas.reshape(size, ENLARGED, size, ENLARGED, 3).mean((1, 3)) + rng.normal(0, 3, (size, size, 3))
    shares = np.stack([(owner == i).reshape(size, ENLARGED, size, ENLARGED).mean((1, 3)) for i in range(len(areas) + 1)])
    return image.clip(0, 255).astype(np.uint8), shares, labels


def annotation(mask, label):
    """Return a mask ``(H, W)`` as a COCO annotation, with run lengths down the columns that start with a run of zeros."""
    flat = np.concatenate([[0], mask.T.ravel(), [0]]).astype(np.int8)
    changes = np.flatnonzero(np.diff(flat[:-1]))
    counts = np.diff([0, *changes, mask.size])
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    box = [columns[0], rows[0], columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0]]
    segmentation = dict(size=list(mask.shape), counts=counts.tolist())
    return dict(category_id=label, bbox=[int(v) for v in box], area=int(mask.sum()), iscrowd=0, segmentation=segmentation)


def write_split(root, split, count, size, seed, preset):
    """Write the images, label images, list and annotations of one split."""
    low, high = SPLITS[split]
    photos = [photo[:, int(low * photo.shape[1]) : int(high * photo.shape[1])] for photo in load_sample_images().images]
    images, annotations, names = [], [], []
    for index in track(range(count), f'{split} images'):
        rng = np.random.default_rng([seed, list(SPLITS).index(split), index])
        image, shares, labels = draw(rng, photos[rng.integers(len(photos))], size, preset)
        names.append(f'{split}_{index:05d}')
        Image.fromarray(image).save(root / 'JPEGImages' / f'{names[-1]}.jpg', quality=95)
        segmentation = np.array([0, *labels], np.uint8)[shares.argmax(0)]
        segmentation[shares.max(0) < 2 / 3] = VOID
        segmentation = Image.fromarray(segmentation)
        segmentation.putpalette(np.pad(np.array(PALETTE, np.uint8), ((0, VOID - len(CLASSES)), (0, 0)), constant_values=VOID).tobytes())
        segmentation.save(root / 'SegmentationClass' / f'{names[-1]}.png')
        images.append(dict(id=index, file_name=f'{names[-1]}.jpg', width=size, height=size))
        for label, share in zip(labels, shares[1:], strict=True):
            annotations.append(dict(id=len(annotations) + 1, image_id=index, **annotation(share >= 0.5, label)))
    (root / 'ImageSets' / 'Segmentation' / f'{split}.txt').write_text('\n'.join(names) + '\n')
    categories = [dict(id=i, name=name) for i, name in enumerate(CLASSES, 1)]
    (root / 'annotations' / f'{split}.json').write_text(json.dumps(dict(images=images, annotations=annotations, categories=categories)))


def make_shapes(out: Path, num_train: int = 400, num_val: int = 100, size: int = 160, seed: int = 0, preset: str = 'mixed') -> None:
    """Make the data set in ``out``; it appears there only when complete.

    Args:
        out: Folder that does not exist yet, or is empty.
        num_train: Training images.
        num_val: Held-out images.
        size: Edge of the images in pixels, >= 32.
        seed: Seed of everything drawn, >= 0.
        preset: A key of ``PRESETS``.

    Raises:
        ValueError: If ``out`` holds something already, a number is out of range, or the preset is unknown.
    """
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise ValueError(f'make_shapes: out must be a new or empty folder, but got {out}')
    for name, value, least in (('num_train', num_train, 0), ('num_val', num_val, 0), ('size', size, 32), ('seed', seed, 0)):
        if value < least:
            raise ValueError(f'make_shapes: {name} must be >= {least}, but got {value}')
    if preset not in PRESETS:
        raise ValueError(f'make_shapes: preset must be one of {", ".join(PRESETS)}, but got {preset}')
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f'.{out.name}-', dir=out.parent) as unfinished:
        root = Path(unfinished) / out.name
        for folder in ('JPEGImages', 'SegmentationClass', 'ImageSets/Segmentation', 'annotations'):
            (root / folder).mkdir(parents=True)
        for split, count in (('train', num_train), ('val', num_val)):
            write_split(root, split, count, size, seed, PRESETS[preset])
        root.replace(out)


def main():
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('out', type=Path, help='folder to make; refused if it holds something already')
    parser.add_argument('--num-train', type=int, default=400, help='training images (default: %(default)s)')
    parser.add_argument('--num-val', type=int, default=100, help='held-out images (default: %(default)s)')
    parser.add_argument('--size', type=int, default=160, help='edge of the images in pixels (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='same seed, same bytes (default: %(default)s)')
    parser.add_argument('--preset', choices=PRESETS, default='mixed', help='what to draw, as said above (default: %(default)s)')
    args = parser.parse_args()
    try:
        make_shapes(**vars(args))
    except ValueError as error:
        parser.error(str(error))


if __name__ == '__main__':
    main()
