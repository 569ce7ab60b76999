"""Three-line configs over upstream's own train, and evaluate, through upstream's own scripts, in a folder that holds nothing else."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

torchvision = pytest.importorskip('torchvision')
make_shapes = pytest.importorskip('make_shapes')
import upstream  # noqa: E402

BACKBONE = """
custom_imports = dict(imports=['mmpool_ext'], allow_failed_imports=False)
model = dict(backbone=dict(type='LIPResNet'))
"""
# A test-only stand-in for NCCL: mmengine's own launcher asks for a GPU. UnusedLIPResNet has a parameter that the loss does not see.
# gloo's threads may outlive the interpreter, which aborts then, one run in ten; so a process that has done its work leaves by itself.
TWO_PROCESSES = """
import os
import sys

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, MODELS
from mmpool_ext import LIPResNet

torch.distributed.init_process_group('gloo')


@HOOKS.register_module()
class LeaveHook(Hook):
    def after_run(self, runner):
        sys.stdout.flush()
        os._exit(0)


@MODELS.register_module()
class UnusedLIPResNet(LIPResNet):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.planted = torch.nn.Parameter(torch.ones(1))
"""


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A folder with four tiny images to train on, two to evaluate on, and a checkpoint that torchvision's ResNet-50 would write."""
    folder = tmp_path_factory.mktemp('project')
    make_shapes.make_shapes(folder / 'shapes', num_train=4, num_val=2, size=64)
    torch.save(torchvision.models.resnet50().state_dict(), folder / 'resnet50.pth')
    (folder / 'faster-rcnn.py').write_text(f"_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'{BACKBONE}")
    (folder / 'pspnet.py').write_text(f"_base_ = 'mmseg::pspnet/pspnet_r50-d8_4xb4-80k_ade20k-512x512.py'{BACKBONE}")
    (folder / 'resnet.py').write_text(f"_base_ = 'mmpretrain::resnet/resnet50_8xb32_in1k.py'{BACKBONE}")
    (folder / 'two_processes.py').write_text(TWO_PROCESSES)
    (folder / 'two-processes.py').write_text(
        "_base_ = './faster-rcnn.py'\n"
        "custom_imports = dict(imports=['two_processes'], allow_failed_imports=False)\n"
        "custom_hooks = [dict(type='LeaveHook', priority='LOWEST')]\n"
        "model_wrapper_cfg = dict(type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False)\n"
    )
    return folder


LOADERS = {f'{split}_dataloader.{key}': value for split in ('train', 'val') for key, value in (('num_workers', 0), ('persistent_workers', False))}
NO_CHECKPOINT = {'default_hooks.checkpoint.interval': 9, 'default_hooks.checkpoint.save_last': False}
DETECTION = {
    **LOADERS,
    **NO_CHECKPOINT,
    'default_hooks.logger.interval': 1,
    'train_cfg.max_epochs': 1,
    'val_evaluator.ann_file': 'shapes/annotations/val.json',
    'model.roi_head.bbox_head.num_classes': 4,
    'model.backbone.init_cfg.checkpoint': 'resnet50.pth',
    **{
        f'{split}_dataloader.dataset.{key}': value
        for split, resize in (('train', 2), ('val', 1))
        for key, value in {
            'data_root': 'shapes',
            'ann_file': f'annotations/{split}.json',
            'data_prefix.img': 'JPEGImages',
            'metainfo.classes': '("box","disc","sign","lattice")',
            f'pipeline.{resize}.scale': '(64,64)',
        }.items()
    },
}


def train(folder, script, config, options, *launch):
    """Run a training script on a config and return its exit status and everything it said."""
    command = [sys.executable, *launch, *script, config, *(('--launcher', 'pytorch') if launch else ())]
    command += ['--cfg-options', *(f'{key}={value}' for key, value in options.items())]
    environment = dict(os.environ, OMP_NUM_THREADS='1', PYTHONPATH=os.pathsep.join([str(folder), *sys.path]))
    run = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300)
    return run.returncode, run.stdout


def train_two_processes(folder, **options):
    """Train the detector as two gloo processes, one image each a step."""
    torchrun = ('-m', 'torch.distributed.run', '--standalone', '--nproc-per-node=2')
    options = {**DETECTION, 'train_dataloader.batch_size': 1, **options}
    return train(folder, [upstream.script_path('mmdet', 'train')], 'two-processes.py', options, *torchrun)


def test_detector_trains_two_iterations_and_says_what_it_took_over(folder):
    pytest.importorskip('mmdet')
    status, said = train(folder, [upstream.script_path('mmdet', 'train')], 'faster-rcnn.py', DETECTION)
    assert status == 0, said
    assert 'taken over' in said
    assert '[1][2/2]' in said
    assert 'Epoch(val) [1]' in said  # no mAP is logged if two iterations detect nothing


def test_two_processes(folder):
    pytest.importorskip('mmdet')
    status, said = train_two_processes(folder)
    assert status == 0, said
    assert '[1][2/2]' in said
    assert 'Epoch(val) [1]' in said  # no mAP is logged if two iterations detect nothing


def test_two_processes_find_a_planted_unused_parameter(folder):
    pytest.importorskip('mmdet')
    status, said = train_two_processes(folder, **{'model.backbone.type': 'UnusedLIPResNet'})
    assert status != 0
    assert 'Expected to have finished reduction in the prior iteration' in said


def test_segmentor_trains_a_step_and_evaluates(folder):
    pytest.importorskip('mmseg')
    norms = ('backbone', 'decode_head', 'auxiliary_head')
    options = {
        **LOADERS,
        **NO_CHECKPOINT,
        'train_cfg.max_iters': 1,
        'train_cfg.val_interval': 1,
        'train_dataloader.batch_size': 2,
        'model.pretrained': None,
        'model.data_preprocessor.size': '(64,64)',
        **{f'model.{part}.norm_cfg.type': 'BN' for part in norms},
        'train_dataloader.dataset.pipeline.2.scale': '(64,64)',
        'train_dataloader.dataset.pipeline.3.crop_size': '(64,64)',
        'val_dataloader.dataset.pipeline.1.scale': '(64,64)',
        **{f'{split}_dataloader.dataset.data_root': 'shapes' for split in ('train', 'val')},
        **{f'{split}_dataloader.dataset.ann_file': f'ImageSets/Segmentation/{split}.txt' for split in ('train', 'val')},
        **{f'{split}_dataloader.dataset.data_prefix.img_path': 'JPEGImages' for split in ('train', 'val')},
        **{f'{split}_dataloader.dataset.data_prefix.seg_map_path': 'SegmentationClass' for split in ('train', 'val')},
    }
    status, said = train(folder, [upstream.__file__, 'mmseg', 'train'], 'pspnet.py', options)
    assert status == 0, said
    assert 'mIoU' in said


def test_classifier_trains_a_step_and_evaluates(folder):
    pytest.importorskip('mmpretrain')
    (folder / 'shapes' / 'meta').mkdir(exist_ok=True)
    for split, count in (('train', 4), ('val', 2)):
        (folder / 'shapes' / 'meta' / f'{split}.txt').write_text(''.join(f'{split}_{i:05d}.jpg {i}\n' for i in range(count)))
    options = {
        **LOADERS,
        **NO_CHECKPOINT,
        'train_cfg.max_epochs': 1,
        'train_dataloader.dataset.pipeline.1.scale': 64,
        'val_dataloader.dataset.pipeline.1.scale': 64,
        'val_dataloader.dataset.pipeline.2.crop_size': 64,
        **{f'{split}_dataloader.dataset.data_root': 'shapes' for split in ('train', 'val')},
        **{f'{split}_dataloader.dataset.data_prefix': 'JPEGImages' for split in ('train', 'val')},
    }
    status, said = train(folder, [upstream.__file__, 'mmpretrain', 'train'], 'resnet.py', options)
    assert status == 0, said
    assert 'accuracy/top1' in said


@pytest.mark.parametrize(
    ('codebase', 'script', 'config', 'options'),
    [
        ('mmseg', 'misc/print_config', 'dupsampling_r18-os16_1xb8-400i_shapes-160x160', []),
        ('mmdet', 'misc/print_config', 'faster-rcnn_lip-r14_fpn_1xb8-400i_shapes-160x160', []),
        ('mmdet', 'analysis_tools/browse_dataset', 'faster-rcnn_lip-r14_fpn_1xb8-400i_shapes-160x160', ['--not-show', '--output-dir', 'browsed']),
        ('mmseg', 'analysis_tools/benchmark', 'fcn_ppool-unet_1xb4-1000i_shapes-160x160', ['no.pth']),
    ],
    ids=lambda value: value.replace('/', '-') if isinstance(value, str) else '',
)
def test_upstreams_other_scripts_take_the_shapes_configs(tmp_path, codebase, script, config, options):
    pytest.importorskip(codebase)
    make_shapes.make_shapes(tmp_path / 'data' / 'shapes', num_train=2, num_val=6, size=64)
    command = [
        sys.executable,
        upstream.__file__,
        codebase,
        script,
        Path(upstream.__file__).parents[1] / 'configs' / 'shapes' / f'{config}.py',
        *options,
    ]
    environment = dict(os.environ, OMP_NUM_THREADS='1', PYTHONPATH=os.pathsep.join(sys.path))
    run = subprocess.run(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300)
    assert run.returncode == 0, run.stdout
    if 'print_config' in script:
        assert 'mmpool_ext' in run.stdout
    elif 'browse' in script:
        assert {path.name for path in (tmp_path / 'browsed').rglob('*.jpg')} == {'train_00000.jpg', 'train_00001.jpg'}
    else:
        assert 'Average fps' in run.stdout
