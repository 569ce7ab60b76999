import numpy as np
import pytest
import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn

pytest.importorskip('matplotlib')
import mmpool_ext  # noqa: F401 registers the hook
from mmpool_ext.visualization.pyramid import PyramidLevelHook, draw_pyramid


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


def test_the_hook_logs_the_share_of_each_level_and_draws(tmp_path):
    pytest.importorskip('mmseg')
    from mmpool_ext import PyramidRepresentationHead

    # at the start every cell has a unity of about a half, so with this threshold the finest level takes all pixels
    arguments = dict(in_channels=4, channels=4, num_classes=3, strides=(8, 4), context=None, unity_channels=4, unity_threshold=0.999)
    head = PyramidRepresentationHead(**arguments)
    runner = run_hook(Net(head), tmp_path)
    shares = [runner.message_hub.get_scalar(f'train/pyramid_share/stride{stride}').data[0] for stride in (8, 4)]
    np.testing.assert_array_equal(shares, [[0, 0], [1, 1]])
    (picture,) = tmp_path.rglob('vis_image/*.png')
    assert picture.name == 'pyramid_4.png'
    with pytest.raises(ValueError, match='PyramidLevelHook: decode_head must predict a unity pyramid, but got Identity without one'):
        PyramidLevelHook().watch(Net(nn.Identity()))


class Net(BaseModel):
    def __init__(self, head):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 4, stride=4)
        self.decode_head = head

    def forward(self, inputs, mode='loss'):
        pyramid = self.decode_head.forward([self.conv(inputs)])
        return dict(loss=sum(logits.square().mean() for logits in pyramid.semantic))


def run_hook(model, folder):
    loader = dict(dataset=[torch.rand(3, 16, 32) for _ in range(4)], batch_size=1, sampler=dict(type='DefaultSampler', shuffle=False))
    loader['collate_fn'] = lambda batch: dict(inputs=torch.stack(batch))
    runner = Runner(
        model=model,
        work_dir=str(folder),
        train_dataloader=loader,
        train_cfg=dict(by_epoch=False, max_iters=4),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.0)),
        custom_hooks=[dict(type='PyramidLevelHook', interval=2, picture_interval=4)],
        visualizer=dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')]),
        experiment_name=f'pyramid-{folder.name}',
    )
    runner.train()
    return runner
