"""What a checkpoint gave a backbone: said in one line, and known to the backbone afterwards."""

import warnings
from contextlib import contextmanager

from mmengine.logging import print_log


class CheckpointReport:
    """Names of a module's tensors, sorted by what a checkpoint did to them.

    Attributes:
        loaded: Whether a checkpoint was loaded at all.
        fresh: Names of tensors that no checkpoint filled (absent from it, or there with another shape).
    """

    def __init__(self, shapes):
        self.shapes = shapes
        self.loaded = False
        self.fresh = set(shapes)
        self.unused = set()
        self.offered = []

    def take(self, state_dict):
        """Note what ``state_dict`` fills."""
        self.loaded = True
        offered = {name: tensor.shape for name, tensor in state_dict.items() if not name.endswith('num_batches_tracked')}
        fits = {name for name, shape in offered.items() if self.shapes.get(name) == shape}
        self.fresh -= fits
        self.unused |= set(offered) - fits
        self.offered = list(offered)


@contextmanager
def report_checkpoint(module):
    """Watch the checkpoints that are loaded into ``module`` while the context is open, then say in one log line what they gave.

    A warning names the frozen tensors that they did not fill.

    Args:
        module: The module whose ``init_weights`` runs inside the context.

    Yields:
        A :class:`CheckpointReport`, filled as checkpoints are loaded.

    Raises:
        ValueError: If a checkpoint was loaded and not one tensor fits by name and shape.
    """
    name = type(module).__name__
    report = CheckpointReport({key: value.shape for key, value in module.state_dict().items() if not key.endswith('num_batches_tracked')})
    handle = module.register_load_state_dict_pre_hook(lambda _module, state_dict, prefix, *_: report.take(state_dict))
    try:
        yield report
    finally:
        handle.remove()
    if not report.loaded:
        return
    taken = len(report.shapes) - len(report.fresh)
    if not taken:
        raise ValueError(
            f'{name}: the checkpoint must share at least one tensor (name and shape) with the network, but got none; '
            f'the checkpoint begins with {report.offered[:3]}, the network with {list(report.shapes)[:3]}'
        )
    print_log(
        f'{name}: {taken} tensors taken over, {len(report.fresh)} not found and start fresh, {len(report.unused)} of the checkpoint unused',
        logger='current',
    )
    frozen = sorted(name for name, parameter in module.named_parameters() if not parameter.requires_grad and name in report.fresh)
    if frozen:
        warnings.warn(
            f'{type(module).__name__}: frozen tensors start fresh and will not be trained: {", ".join(frozen)}; '
            'lower frozen_stages or load a checkpoint that has them',
            stacklevel=4,
        )
