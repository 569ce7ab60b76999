"""Build any registered backbone by its name."""

import importlib
from difflib import get_close_matches
from importlib.util import find_spec

from mmengine.config.utils import MODULE2PACKAGE
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from .checkpoint import report_checkpoint, report_later_checkpoints

ROOT = MODELS.scope
# Those that most people have first: the first codebase that knows a bare name wins.
CODEBASES = tuple(dict.fromkeys(('mmdet', 'mmseg', 'mmpretrain', *MODULE2PACKAGE)))


def build_backbone(backbone: str | type | dict, **kwargs) -> nn.Module:
    """Build a backbone of an OpenMMLab codebase, timm or mmengine's root registry by its name, class or config.

    A bare name is looked for in the current default scope (the config's ``default_scope``), then in the root registry, then in mmdet, mmseg,
    mmpretrain and the other codebases that are installed, such as mmpose; the first that has it wins. ``'mmpretrain.VGG'`` names the codebase.
    The backbone is built under the scope that it was found in, so that its own layers resolve there. ``'timm.resnet18'`` is timm's network with
    ``features_only=True``, unless the arguments say otherwise; it returns a tuple of features as every other backbone does. With
    ``pretrained=True`` it is built without weights, as OpenMMLab's backbones are, and ``init_weights``, which mmengine's runner calls, loads
    them: testing a checkpoint needs no download. The tag of timm's weights is a part of the name: ``'timm.xception65.tf_in1k'``.

    Args:
        backbone: ``'ResNetV1c'``, ``'mmpretrain.DenseNet'``, ``'timm.hrnet_w18'``, ``'timm.resnet50s.gluon_in1k'``, or a class's full path; the class
            itself, as in new-style configs; or a config with one of these as ``type`` and the backbone's arguments.
        **kwargs: The backbone's own arguments.

    Returns:
        The backbone itself, unwrapped: its parameters keep their names.

    Raises:
        TypeError: If ``backbone`` is none of these or does not take an argument, or an argument is given twice.
        ValueError: If no registry, or timm, knows the name.
        RuntimeError: If the codebase is missing or cannot be imported.
    """
    backbone, kwargs = with_arguments(backbone, kwargs)
    try:
        return _build(backbone, **kwargs)
    except TypeError as error:
        if 'unexpected keyword argument' not in str(error):
            raise
        name = backbone if isinstance(backbone, str) else backbone.__name__
        timm = '; timm has in_chans for in_channels, and no frozen_stages and norm_eval' if name.startswith('timm.') else ''
        raise TypeError(
            f'build_backbone: arguments must be those of {name}, but got another: {error}{timm}; in a config that inherits another backbone, '
            'backbone=dict(_delete_=True, ...) drops the arguments of that one'
        ) from error


def with_arguments(backbone: str | type | dict, kwargs: dict) -> tuple[str | type, dict]:
    """Return a backbone's type and all its arguments, those in its config and those beside it.

    Raises:
        TypeError: If there is no type, or an argument is in both places.
    """
    if isinstance(backbone, dict):
        inner = dict(backbone)
        backbone = inner.pop('type', None)
        twice = sorted(inner.keys() & kwargs.keys())
        if twice:
            raise TypeError(f'build_backbone: arguments must be given once, but got {", ".join(twice)} in the config of the backbone and beside it')
        kwargs = inner | kwargs
    if not isinstance(backbone, str) and not callable(backbone):
        raise TypeError(f'build_backbone: backbone must be a name, a class or a config with a type, but got {backbone!r}')
    return backbone, kwargs


def _build(backbone, **kwargs):
    if not isinstance(backbone, str):
        scope = backbone.__module__.partition('.')[0]  # the class's own layers resolve in its codebase
        return MODELS.build(dict(type=backbone, **kwargs, **(dict(_scope_=scope) if scope in CODEBASES else {})))
    scope, _, name = backbone.rpartition('.')
    if backbone.startswith('timm.'):
        return _build_timm(backbone.removeprefix('timm.'), **kwargs)
    if scope in CODEBASES:
        return _build_in(scope, name, backbone, **kwargs)
    if scope:
        if MODELS.get(backbone) is None:
            raise ValueError(f'build_backbone: backbone must be an importable class path, but got {backbone!r}')
        return MODELS.build(dict(type=backbone, **kwargs))
    current = DefaultScope.get_current_instance()
    scopes = [ROOT, *(codebase for codebase in CODEBASES if find_spec(codebase))]
    if current is not None:
        scopes = list(dict.fromkeys([current.scope_name, *scopes]))
    for candidate in scopes:
        if name in _registered(candidate, name):
            return _build_in(candidate, name, backbone, **kwargs)
    known = [known for candidate in scopes for known in _registered(candidate, name)]
    raise ValueError(
        f'build_backbone: backbone must be registered in one of {", ".join(scopes)} or read timm.<model>, but got {backbone!r}{_close(name, known)}'
    )


def _build_in(scope, name, backbone, **kwargs):
    known = _registered(scope, backbone)
    if name not in known:
        raise ValueError(f'build_backbone: backbone must be registered in {scope}, but got {backbone!r}{_close(name, known)}')
    config = dict(type=name, **kwargs)
    return MODELS.build(config if scope == ROOT else dict(config, _scope_=scope))


def _registered(scope, wanted):
    """Import all models of a codebase and return the names in its registry."""
    if find_spec(scope) is None:
        raise RuntimeError(f'build_backbone: {scope} must be installed for {wanted!r}, but there is no such module')
    try:
        registry = importlib.import_module(f'{scope}.registry').MODELS
        registry.import_from_location()
    except Exception as error:  # mmdet and mmseg raise AssertionError for an mmcv that they do not know
        raise RuntimeError(
            f'build_backbone: {scope} must be importable to look for {wanted!r} in it, but importing it raised {type(error).__name__}: {error}'
        ) from error
    return registry.module_dict


def _build_timm(name, features_only=True, pretrained=False, **kwargs):
    if find_spec('timm') is None:
        raise RuntimeError(f"build_backbone: timm must be installed for 'timm.{name}', but there is no such module; pip install timm")
    timm = importlib.import_module('timm')
    model, _, tag = name.partition('.')
    if not timm.is_model(model):
        raise ValueError(f"build_backbone: backbone must be a model of timm, but got 'timm.{name}'{_close(model, timm.list_models())}")
    tags = [known.partition('.')[2] for known in timm.list_pretrained(f'{model}.*')]
    if tag and tag not in tags:
        raise ValueError(f"build_backbone: a tag must be one of {', '.join(tags) or 'none'} for timm.{model}, but got 'timm.{name}'")
    network = timm.create_model(name, features_only=features_only, **kwargs)
    network.register_forward_hook(_as_tuple)
    report_later_checkpoints(network)
    if pretrained:
        network.init_weights = TimmWeights(network, name, dict(kwargs, features_only=features_only))
    return network


class TimmWeights:
    """Stands in for ``init_weights`` of a timm network: loads the weights that timm publishes for it.

    Poolings that replaced the network's own keep their initial state. The weights come from a second network with the original arguments,
    because timm's loader adapts them to the number of input channels and to the names that ``features_only`` gives.

    Args:
        network: The network that takes the weights.
        name: Its name in timm, perhaps with a tag.
        arguments: The arguments it was built with.
    """

    def __init__(self, network: nn.Module, name: str, arguments: dict):
        self.network, self.name, self.arguments = network, name, arguments

    def __call__(self):
        """Load the weights from timm's cache, or download them.

        Raises:
            ValueError: If no tensor fits.
        """
        published = importlib.import_module('timm').create_model(self.name, pretrained=True, **self.arguments).state_dict()
        with report_checkpoint(self.network):
            self.network.load_state_dict(published, strict=False)


def _as_tuple(module, args, output):
    return tuple(output) if isinstance(output, (list, tuple)) else (output,)


def _close(name, known):
    close = get_close_matches(name, known, n=3)
    return f'; close to it: {", ".join(close)}' if close else ''
