"""Round trips, refusals, and that the converted weights compute the paper's network."""

import io
import subprocess
import sys
from pathlib import Path

import pytest
import reference
import torch
from torch.testing import assert_close

pytest.importorskip('torchvision')
from convert_lip_checkpoint import convert

from mmpool_ext import LIPDenseNet, LIPResNet

ROOT = Path(__file__).parents[2]
# Shapes under the authors' names, our backbone, the oracle's forward pass
NETWORKS = {
    'lip_resnet-50': (
        reference.lip_resnet_shapes((3, 4, 6, 3)),
        lambda: LIPResNet(50),
        lambda oracle, image: oracle.resnet(image, (3, 4, 6, 3)),
    ),
    'lip_resnet-101': (
        reference.lip_resnet_shapes((3, 4, 23, 3)),
        lambda: LIPResNet(101),
        lambda oracle, image: oracle.resnet(image, (3, 4, 23, 3)),
    ),
    'lip_densenet_121': (reference.lip_densenet_shapes(), lambda: LIPDenseNet(121), lambda oracle, image: oracle.densenet(image)),
}


def make_state(name):
    """Random weights under the authors' names that keep activations moderate."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for key, shape in NETWORKS[name][0].items():
        noise = torch.randn(shape, generator=generator)
        if key.endswith('num_batches_tracked'):
            state[key] = torch.tensor(450360)
        elif len(shape) > 1:
            state[key] = noise * (2 / noise[0].numel()) ** 0.5
        elif key.endswith(('weight', 'running_var')):
            state[key] = 0.5 + noise.abs() / 2
        else:
            state[key] = noise / 10
    return state


@pytest.fixture(params=NETWORKS)
def name(request):
    return request.param


def saved(state):
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def test_layout_has_the_papers_parameters(name):
    """LIP paper, Table 4."""
    counted = sum(torch.Size(shape).numel() for key, shape in NETWORKS[name][0].items() if not key.endswith(('mean', 'var', 'tracked')))
    assert counted / 1e6 == pytest.approx({'lip_resnet-50': 23.9, 'lip_resnet-101': 42.9, 'lip_densenet_121': 8.7}[name], rel=0.002)


@pytest.mark.parametrize('classifier', [False, True])
def test_round_trip_is_byte_for_byte(name, classifier):
    state = make_state(name)
    ours = convert(state, classifier=classifier)
    if not classifier:
        state = {key: tensor for key, tensor in state.items() if not key.startswith(('fc.', 'classifier.'))}
        NETWORKS[name][1]().load_state_dict(ours)
        assert convert(state).keys() == ours.keys()
    back = convert(ours, to_authors=True)
    assert list(back) == list(state)
    assert saved(back) == saved(state)
    assert saved(ours) != saved(state)


def test_computes_the_papers_network(name):
    state = make_state(name)
    network = NETWORKS[name][1]().double().eval()
    network.load_state_dict(convert(state))
    image = torch.randn(1, 3, 65, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        features = network(image.double())[-1]
    weight, bias = (convert(state, classifier=True)[f'head.fc.{part}'].double() for part in ('weight', 'bias'))
    expected = NETWORKS[name][2](reference.LIPNetwork(state), image)
    assert_close(features.mean((2, 3)) @ weight.T + bias, expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())


def test_fits_mmpretrains_classifier(name):
    """Of the config that the README names."""
    pytest.importorskip('mmpretrain')
    from mmengine.config import Config
    from mmengine.registry import init_default_scope
    from mmpretrain.registry import MODELS

    config = {'lip_resnet-50': 'lip-resnet50_8xb32', 'lip_resnet-101': 'lip-resnet101_8xb32', 'lip_densenet_121': 'lip-densenet121_4xb64'}[name]
    init_default_scope('mmpretrain')
    with torch.device('meta'):
        classifier = MODELS.build(Config.fromfile(ROOT / 'configs' / 'lip' / f'{config}_in1k.py').model)
    classifier.load_state_dict(convert(make_state(name), classifier=True), assign=True)


def test_prefix_of_a_data_parallel_run_and_files_without_counters():
    state = make_state('lip_resnet-50')
    expected = convert(state)
    assert saved(convert({f'module.{key}': tensor for key, tensor in state.items()})) == saved(expected)
    old = {key: tensor for key, tensor in state.items() if not key.endswith('num_batches_tracked')}
    assert list(convert(old)) == [key for key in expected if not key.endswith('num_batches_tracked')]
    del state['bn1.num_batches_tracked']
    with pytest.raises(ValueError, match=r'but got 1 missing: bn1.num_batches_tracked$'):
        convert(state)


@pytest.mark.parametrize('to_authors', [False, True])
def test_every_missing_surplus_or_misshapen_tensor_is_named(name, to_authors):
    state = make_state(name)
    if to_authors:
        state = convert(state, classifier=True)
    title = {'lip_resnet-50': 'LIP-ResNet-50', 'lip_resnet-101': 'LIP-ResNet-101', 'lip_densenet_121': 'LIP-DenseNet-121'}[name]
    layout = 'our' if to_authors else "the authors'"
    for key in [*list(state)[::40], list(state)[-1]]:
        must = rf'convert_lip_checkpoint: the file must hold the tensors of {title} under {layout} names, but got '
        without = {other: tensor for other, tensor in state.items() if other != key}
        with pytest.raises(ValueError, match=rf'{must}1 missing: {key}$'):
            convert(without, to_authors)
        with pytest.raises(ValueError, match=rf'{must}1 missing: {key}; 1 surplus: {key}_$'):
            convert({**without, f'{key}_': state[key]}, to_authors)
        with pytest.raises(ValueError, match=rf'{must}1 of another shape: {key} \(7, 7, 7\)$'):
            convert({**state, key: torch.zeros(7, 7, 7)}, to_authors)


def test_wrong_way_round():
    state = make_state('lip_resnet-50')
    with pytest.raises(ValueError, match=r'under our names, but got \d+ missing: .*, \.\.\.; \d+ surplus: '):
        convert(state, to_authors=True)
    with pytest.raises(ValueError, match=r"under the authors' names, but got \d+ missing: maxpool"):
        convert(convert(state))


def run(*arguments):
    tool = ROOT / 'tools' / 'model_converters' / 'convert_lip_checkpoint.py'
    return subprocess.run([sys.executable, tool, *arguments], capture_output=True, text=True)


def test_command_line(tmp_path):
    state = make_state('lip_resnet-50')
    torch.save(dict(state_dict=state, epoch=90), tmp_path / 'authors.pth')
    done = run(tmp_path / 'authors.pth', tmp_path / 'new' / 'ours.pth', '--classifier')
    assert done.returncode == 0, done.stderr
    assert f'{len(state)} tensors' in done.stdout
    assert torch.load(tmp_path / 'new' / 'ours.pth', weights_only=True).keys() == convert(state, classifier=True).keys()
    assert run(tmp_path / 'new' / 'ours.pth', tmp_path / 'back.pth', '--to-authors').returncode == 0
    assert saved(torch.load(tmp_path / 'back.pth', weights_only=True)) == saved(state)
    assert not list(tmp_path.rglob('.*'))
    done = run(tmp_path / 'authors.pth', tmp_path / 'back.pth')
    assert done.returncode == 2
    assert 'OUT must not exist without --overwrite, but got ' in done.stderr


def test_file_with_code_in_it_needs_trust(tmp_path):
    torch.save(dict(state_dict=make_state('lip_resnet-50'), history=io.BytesIO()), tmp_path / 'training.pth')
    done = run(tmp_path / 'training.pth', tmp_path / 'ours.pth')
    assert done.returncode == 2
    assert 'the file must load under weights_only=True' in done.stderr
    assert not (tmp_path / 'ours.pth').exists()
    assert run(tmp_path / 'training.pth', tmp_path / 'ours.pth', '--trusted').returncode == 0
    torch.save(torch.zeros(1), tmp_path / 'tensor.pth')
    assert 'the file must hold a state dict, but got' in run(tmp_path / 'tensor.pth', tmp_path / 'x.pth').stderr
