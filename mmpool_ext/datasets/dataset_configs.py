"""What tools ask of the config of a data set or a pipeline, old style (types are names) or new style (types are classes)."""

from collections.abc import Iterator

from mmengine.registry import TRANSFORMS


def leaves(dataset: dict) -> Iterator[dict]:
    """Yield the configs of the data sets inside wrappers such as ConcatDataset and RepeatDataset."""
    inner = dataset.get('datasets') or ([dataset['dataset']] if 'dataset' in dataset else [])
    if not inner:
        yield dataset
    for one in inner:
        yield from leaves(one)


def type_name(cfg: dict) -> str:
    """Name of a config's type, without its scope."""
    return cfg['type'].rpartition('.')[2] if isinstance(cfg['type'], str) else cfg['type'].__name__


def step_class(step: dict):
    """Class of a step of a pipeline; None if its name is not registered in the default scope or its parents."""
    if not isinstance(step['type'], str):
        return step['type']
    with TRANSFORMS.switch_scope_and_registry(None) as registry:
        return registry.get(step['type'])


def loads_labels(step: dict) -> bool:
    """Whether a step is mmcv's LoadAnnotations or made of it, as mmseg's and mmdet's are."""
    from mmcv.transforms import LoadAnnotations

    cls = step_class(step)
    return isinstance(cls, type) and issubclass(cls, LoadAnnotations)
