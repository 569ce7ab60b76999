"""Any registered backbone, built by its name."""

import importlib
from difflib import get_close_matches
from importlib.util import find_spec

from mmengine.registry import MODELS, DefaultScope
from torch import nn

ROOT = MODELS.scope
CODEBASES = ('mmdet', 'mmseg', 'mmpretrain')


def build_backbone(backbone: str, **kwargs) -> nn.Module:
    """Build a backbone of mmdet, mmseg, mmpretrain, timm or mmengine's root registry by its name.

    A bare name is looked for in the current default scope (the config's ``default_scope``), then in the root registry, then in mmdet,
    mmseg and mmpretrain; the first that has it wins. ``'mmpretrain.VGG'`` names the codebase. The backbone is built under the scope that
    it was found in, so that its own layers resolve there. ``'timm.resnet18'`` is timm's network with ``features_only=True``, unless the
    arguments say otherwise; it returns a tuple of features as every other backbone does.

    Args:
        backbone: ``'ResNetV1c'``, ``'mmpretrain.DenseNet'``, ``'timm.hrnet_w18'``, or a class's full path.
        **kwargs: The backbone's own arguments.

    Returns:
        The backbone itself, unwrapped: its parameters keep their names.

    Raises:
        TypeError: If ``backbone`` is not a string.
        ValueError: If no registry, or timm, knows the name.
        RuntimeError: If the codebase is missing or cannot be imported.
    """
    if not isinstance(backbone, str):
        raise TypeError(f'build_backbone: backbone must be a name, but got {type(backbone).__name__}; give its arguments beside it')
    scope, _, name = backbone.rpartition('.')
    if scope == 'timm':
        return _build_timm(name, **kwargs)
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
    """The names in a codebase's MODELS, all its models imported."""
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


def _build_timm(name, features_only=True, **kwargs):
    if find_spec('timm') is None:
        raise RuntimeError(f"build_backbone: timm must be installed for 'timm.{name}', but there is no such module; pip install timm")
    timm = importlib.import_module('timm')
    if not timm.is_model(name):
        raise ValueError(f"build_backbone: backbone must be a model of timm, but got 'timm.{name}'{_close(name, timm.list_models())}")
    network = timm.create_model(name, features_only=features_only, **kwargs)
    network.register_forward_hook(_as_tuple)
    return network


def _as_tuple(module, args, output):
    return tuple(output) if isinstance(output, (list, tuple)) else (output,)


def _close(name, known):
    close = get_close_matches(name, known, n=3)
    return f'; close to it: {", ".join(close)}' if close else ''
