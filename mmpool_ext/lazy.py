"""Names that need another package (mmdet, mmseg, mmpretrain, torchvision, timm): registered at once, imported when first built."""

import importlib

# Public name: (registry in mmengine.registry, module below mmpool_ext, the package that it needs)
LAZY: dict[str, tuple[str, str, str]] = {
    'AsymmetricNonLocalContext': ('MODELS', 'decode_heads.asymmetric_nonlocal_context', 'mmseg'),
    'AveragePoolingWarmupHook': ('HOOKS', 'layers.lip_warmup', 'mmengine'),
    'BilinearFusionHead': ('MODELS', 'decode_heads.dupsampling_head', 'mmseg'),
    'BoundaryIoUMetric': ('METRICS', 'evaluation.boundary_iou_metric', 'mmseg'),
    'DUpsamplingHead': ('MODELS', 'decode_heads.dupsampling_head', 'mmseg'),
    'FCN8sHead': ('MODELS', 'decode_heads.fcn8s_head', 'mmseg'),
    'LIPDenseNet': ('MODELS', 'backbones.lip_densenet', 'torchvision'),
    'LIPEntropyHook': ('HOOKS', 'visualization.importance', 'matplotlib'),
    'LabelAsInput': ('MODELS', 'datasets.label_as_input', 'mmseg'),
    'MeanAlphaHook': ('HOOKS', 'visualization.alpha', 'matplotlib'),
    'PPoolResNet': ('MODELS', 'backbones.ppool_resnet', 'torchvision'),
    'PPoolVGG': ('MODELS', 'backbones.ppool_vgg', 'torchvision'),
    'PPoolXception': ('MODELS', 'backbones.ppool_xception', 'timm'),
    'PyramidEncoderDecoder': ('MODELS', 'evaluation.pyramid_encoder_decoder', 'mmseg'),
    'PyramidLevelHook': ('HOOKS', 'visualization.pyramid', 'matplotlib'),
    'PyramidLevelMetric': ('METRICS', 'evaluation.pyramid_level_metric', 'mmseg'),
    'PyramidRepresentationHead': ('MODELS', 'decode_heads.pyramid_representation_head', 'mmseg'),
}


def load(name):
    """Import the class behind a lazily registered name.

    Args:
        name: A key of ``LAZY``.

    Returns:
        The class itself.

    Raises:
        RuntimeError: If the codebase is missing or broken. Not an ImportError: mmengine swallows those and leaves "not in the registry".
    """
    _, module, codebase = LAZY[name]
    try:
        return getattr(importlib.import_module(f'mmpool_ext.{module}'), name)
    except Exception as error:  # mmseg and mmdet raise AssertionError for an mmcv that they do not know
        raise RuntimeError(f'{name}: {codebase} must be importable, but importing it raised {type(error).__name__}: {error}') from error


def _register(name):
    registry = getattr(importlib.import_module('mmengine.registry'), LAZY[name][0])

    def build(*args, **kwargs):
        return load(name)(*args, **kwargs)

    build.__name__ = build.__qualname__ = name
    registry.register_module(name=name, module=build)


for _name in LAZY:
    _register(_name)
