"""How a config reads an image that is to be looked at."""

from mmengine.config import Config
from mmengine.dataset import Compose

from ..datasets.dataset_configs import leaves, loads_labels


def image_pipeline(cfg: Config) -> Compose:
    """Build the test pipeline of a config without its annotations.

    Args:
        cfg: A config with a ``test_dataloader`` or, if that is None or absent, a ``val_dataloader``. Data sets inside of wrappers are found.

    Returns:
        What takes ``dict(img_path=...)`` to the network's input.

    Raises:
        ValueError: If neither loader has a data set with a pipeline.
    """
    loader = cfg.get('test_dataloader') or cfg.get('val_dataloader') or {}
    dataset = loader.get('dataset') or {}
    dataset = next(leaves(dataset))
    if 'pipeline' not in dataset:
        given = {name: cfg.get(name) for name in ('test_dataloader', 'val_dataloader')}
        raise ValueError(f'image_pipeline: the config must have a test_dataloader or val_dataloader whose dataset has a pipeline, but got {given}')
    return Compose([step for step in dataset['pipeline'] if not loads_labels(step)])
