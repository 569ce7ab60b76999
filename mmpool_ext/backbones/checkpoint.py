"""Report which tensors of a backbone a checkpoint filled."""

import warnings
from contextlib import contextmanager

from mmengine.logging import print_log
from mmengine.model import PretrainedInit

REPORTING: set[int] = set()  # modules whose init_weights runs in report_checkpoint


def _is_note(name):
    """Whether an entry of a state dict is no weight: batch normalisation's counter, or what LIPResNet notes for a resume."""
    return name.endswith(('num_batches_tracked', 'fresh_tensors'))


def is_pretrained(init_cfg):
    """Whether an initialisation config loads a checkpoint."""
    return init_cfg['type'] in ('Pretrained', PretrainedInit)


def is_initialising(module):
    """Whether ``init_weights`` of a module runs in :func:`report_checkpoint`."""
    return id(module) in REPORTING


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

    @classmethod
    def of(cls, module):
        """A report that begins with the tensors of ``module``."""
        return cls({name: value.shape for name, value in module.state_dict().items() if not _is_note(name)})

    def take(self, state_dict):
        """Note what ``state_dict`` fills."""
        self.loaded = True
        offered = {name: getattr(tensor, 'shape', None) for name, tensor in state_dict.items() if not _is_note(name)}  # None: not a tensor
        fits = {name for name, shape in offered.items() if name in self.shapes and self.shapes[name] == shape}
        self.fresh -= fits
        self.unused |= set(offered) - fits
        self.offered = list(offered)

    def log(self, name):
        """Say in one line what was filled in the module ``name``."""
        taken = len(self.shapes) - len(self.fresh)
        line = f'{taken} tensors taken over, {len(self.fresh)} not found and start fresh, {len(self.unused)} of the checkpoint unused'
        print_log(f'{name}: {line}', logger='current')


@contextmanager
def report_checkpoint(module):
    """Record the checkpoints loaded into ``module`` while the context is open, then log in one line which tensors they filled.

    A warning names the frozen tensors that they did not fill.

    Args:
        module: The module whose ``init_weights`` runs inside the context.

    Yields:
        A :class:`CheckpointReport`, filled as checkpoints are loaded.

    Raises:
        ValueError: If a checkpoint was loaded and not one tensor fits by name and shape.
    """
    name = type(module).__name__
    report = CheckpointReport.of(module)
    handle = module._register_load_state_dict_pre_hook(lambda state_dict, prefix, *_: report.take(state_dict))
    REPORTING.add(id(module))
    try:
        yield report
    finally:
        handle.remove()
        REPORTING.discard(id(module))
    if not report.loaded:
        return
    if len(report.fresh) == len(report.shapes):
        raise ValueError(
            f'{name}: the checkpoint must share at least one tensor (name and shape) with the network, but got none; '
            f'the checkpoint begins with {report.offered[:3]}, the network with {list(report.shapes)[:3]}'
        )
    report.log(name)
    frozen = sorted(name for name, parameter in module.named_parameters() if not parameter.requires_grad and name in report.fresh)
    if frozen:
        warnings.warn(
            f'{type(module).__name__}: frozen tensors start fresh and will not be trained: {", ".join(frozen)}; '
            'lower frozen_stages or load a checkpoint that has them',
            stacklevel=4,
        )


def report_later_checkpoints(module):
    """Log in one line which tensors of ``module`` a checkpoint filled, however it comes: by ``load_from``, a resume or ``load_state_dict``."""
    module._register_load_state_dict_pre_hook(_report, with_module=True)  # its public spelling is newer than torch 2.1


def _report(module, state_dict, prefix, *_):
    if is_initialising(module):
        return
    report = CheckpointReport.of(module)
    report.take({name.removeprefix(prefix): tensor for name, tensor in state_dict.items() if name.startswith(prefix)})
    report.log(f'{type(module).__name__}, loading a checkpoint')
