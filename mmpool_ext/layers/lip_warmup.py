"""Average pooling in the place of LIP for the first iterations of a training (Gao et al., "LIP", ICCV 2019, Table 2 D)."""

import logging

from mmengine.hooks import Hook
from mmengine.logging import print_log
from torch.utils.hooks import RemovableHandle

from .lip_pool import LIPPool2d


class AveragePoolingWarmupHook(Hook):
    """Make every LIP of the model average pooling for the first iterations.

    A logit without normalisation and gate is an unbounded exponent, so the paper's combination D (Table 2) "is trained with average pooling
    within first 2000 iterations and then with LIP". Iterations count from the start of the training, also after a resume.
    Until then the logit modules get zero gradients rather than None, because distributed training waits for the gradient of every parameter.
    Validation during the warm-up averages too. A training that ends within it leaves a model that pools by its logits, as its checkpoint does.

    Args:
        num_iters: Iterations with average pooling, >= 0.

    Raises:
        ValueError: If ``num_iters`` is negative or, when training starts, the model has no ``LIPPool2d``.
    """

    def __init__(self, num_iters: int = 2000):
        if num_iters < 0:
            raise ValueError(f'AveragePoolingWarmupHook: num_iters must be at least 0, but got {num_iters}')
        self.num_iters = num_iters
        self.handles: list[RemovableHandle] = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        """Start or end the warm-up."""
        warming = runner.iter < self.num_iters
        if warming and not self.handles:
            pools = [module for module in runner.model.modules() if isinstance(module, LIPPool2d)]
            if not pools:
                raise ValueError(f'AveragePoolingWarmupHook: the model must have a LIPPool2d, but got {type(runner.model).__name__} without one')
            self.handles = [pool.logit.register_forward_hook(_level) for pool in pools]
        elif not warming:
            self._end()

    def after_train(self, runner):
        """Leave a model that pools as its checkpoint does, also where training was shorter than the warm-up."""
        if self.handles:
            message = f'AveragePoolingWarmupHook: training ended after {runner.iter} of {self.num_iters} iterations with average pooling'
            print_log(f'{message}; from now on the model pools by its logits', logger='current', level=logging.WARNING)
        self._end()

    def _end(self):
        for handle in self.handles:
            handle.remove()
        self.handles: list[RemovableHandle] = []


def _level(module, args, logit):
    return 0 * logit
