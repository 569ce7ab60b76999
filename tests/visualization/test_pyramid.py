import numpy as np
import pytest

pytest.importorskip('matplotlib')
from mmpool_ext.visualization.pyramid import draw_pyramid


def arguments():
    rng = np.random.default_rng(0)
    strides = (16, 8, 4)
    semantic = [rng.integers(0, 3, (48 // stride, 32 // stride)) for stride in strides]
    unity = [rng.random((48 // stride, 32 // stride)) for stride in strides[:-1]]
    return dict(
        image=rng.integers(0, 256, (45, 30, 3), np.uint8),
        semantic=semantic,
        unity=unity,
        level=rng.integers(0, 3, (12, 8)),
        strides=strides,
        palette=[(255, 0, 0), (0, 255, 0), (0, 0, 255)],
    )


def pixels(axes):
    return np.asarray(axes.images[0].get_array())


def test_panels_show_the_levels_and_what_each_contributes():
    given = arguments()
    figure = draw_pyramid(**given)
    panels = {axes.get_title(): axes for axes in figure.axes}
    colours = np.array(given['palette'], np.uint8)
    assert len(figure.axes) == 12
    for level, stride in enumerate(given['strides']):
        np.testing.assert_array_equal(pixels(panels[f'stride {stride}: labels']), colours[given['semantic'][level]])
    for row, column in np.ndindex(12, 8):
        level = given['level'][row, column]
        scale = given['strides'][level] // 4
        label = given['semantic'][level][row // scale, column // scale]
        np.testing.assert_array_equal(pixels(panels['fused'])[row, column], colours[label])
    contributions = [axes for title, axes in panels.items() if title.startswith('taken from it')]
    opaque = sum((pixels(axes)[..., 3] == 255).astype(int) for axes in contributions)
    assert (opaque == 1).all()
    assert all(axes.get_xlim() == (0, 30) and axes.get_ylim() == (45, 0) for axes in figure.axes if axes.images)


def test_ground_truth_and_unknown_labels(tmp_path):
    label = np.full((45, 30), 255)
    figure = draw_pyramid(**arguments(), label=label)
    assert (pixels(figure.axes[-1]) == 128).all()
    figure.savefig(tmp_path / 'out.png')


def test_levels_must_go_together():
    with pytest.raises(ValueError, match='semantic and strides must have one entry a level and unity one fewer, but got 3, 3 and 1'):
        draw_pyramid(**dict(arguments(), unity=arguments()['unity'][:1]))
