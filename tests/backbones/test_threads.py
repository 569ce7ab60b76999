"""Four threads that share one network: state belongs to a call, not to a module."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope

pytest.importorskip('mmseg')
pytest.importorskip('timm')

import mmpool_ext  # noqa: F401 registers the networks

POOL = dict(type='PolynomialPool2d')
NETWORKS = {
    'Tapped': dict(type='Tapped', backbone='mmseg.ResNetV1c', taps=['layer1.0.bn1', 'layer2'], depth=18, base_channels=8, stem_channels=8),
    'Tapped timm': dict(type='Tapped', backbone='timm.resnet18', taps=['act1', 'layer2.0.bn2']),
    'Repooled': dict(type='Repooled', backbone='mmseg.ResNet', depth=18, base_channels=8, stem_channels=8, pool=dict(type='LIPPool2d')),
    'LIPResNet': dict(type='LIPResNet', depth=50, base_channels=8, stem_channels=8),
    'LIPDenseNet': dict(type='LIPDenseNet'),
    'PPoolResNet': dict(type='PPoolResNet', pool=POOL),
    'PPoolVGG': dict(type='PPoolVGG', pool=POOL),
    'PPoolInceptionV2': dict(type='PPoolInceptionV2', pool=POOL),
    'PPoolXception': dict(type='PPoolXception', pool=POOL),
}
THREADS, ROUNDS = 4, 5


def in_threads(work):
    """Run ``work(index)`` in threads that begin at the same moment; what each returns."""
    barrier = Barrier(THREADS)

    def begin(index):
        barrier.wait()
        return work(index)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(begin, range(THREADS)))


@pytest.mark.parametrize('name', NETWORKS)
def test_networks(name):
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmseg'):
        network = MODELS.build(dict(NETWORKS[name]))
    network.eval()
    inputs = [torch.randn(1, 3, 33 + 2 * index, 64 - 4 * index) for index in range(THREADS)]

    @torch.no_grad()
    def run(index):
        return network(inputs[index])

    expected = [run(index) for index in range(THREADS)]
    for got, wanted in zip(in_threads(lambda index: [run(index) for _ in range(ROUNDS)]), expected, strict=True):
        for outputs in got:
            assert len(outputs) == len(wanted)
            for output, want in zip(outputs, wanted, strict=True):
                torch.testing.assert_close(output, want)


def test_tapped_gradients():
    """Each thread's loss sends its gradient through its own taps."""
    torch.manual_seed(0)
    network = MODELS.build(dict(NETWORKS['Tapped']))
    network.eval()
    inputs = [torch.randn(1, 3, 33 + 2 * index, 41) for index in range(THREADS)]

    def gradient(index):
        input = inputs[index].clone().requires_grad_()
        return torch.autograd.grad(sum(output.square().sum() for output in network(input)), input)[0]

    expected = [gradient(index) for index in range(THREADS)]
    for got, wanted in zip(in_threads(lambda index: [gradient(index) for _ in range(ROUNDS)]), expected, strict=True):
        for one in got:
            torch.testing.assert_close(one, wanted)


@pytest.mark.parametrize('name', ['DUpsamplingHead', 'PyramidRepresentationHead'])
def test_heads(name):
    torch.manual_seed(0)
    own = {
        'DUpsamplingHead': dict(upsample=dict(in_channels=4, scale_factor=4, init='random'), dilations=(1, 2)),
        'PyramidRepresentationHead': dict(strides=(16, 8, 4)),
    }
    head = MODELS.build(dict(type=name, in_channels=6, channels=8, num_classes=3, norm_cfg=dict(type='BN'), **own[name]))
    head.init_weights()
    head.eval()
    inputs = [torch.randn(1, 6, 9 + index, 17 - index) for index in range(THREADS)]

    @torch.no_grad()
    def run(index):
        return head((inputs[index],))

    expected = [run(index) for index in range(THREADS)]
    for got, wanted in zip(in_threads(lambda index: [run(index) for _ in range(ROUNDS)]), expected, strict=True):
        for output in got:
            torch.testing.assert_close(output, wanted)
