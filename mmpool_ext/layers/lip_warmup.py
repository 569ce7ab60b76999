"""Average pooling in the place of LIP for the first iterations of a training (Gao et al., "LIP", ICCV 2019, Table 2 D)."""

from mmengine.hooks import Hook

from .lip_pool import LIPPool2d


class AveragePoolingWarmupHook(Hook):
    """Let every LIP of the model pool by the average at first, and by its logit afterwards.

    A logit without normalisation and gate is an unbounded exponent, so the paper's combination D (Table 2) "is trained with average pooling
    within first 2000 iterations and then with LIP". What counts is the number of iterations trained so far, also after a resume. Meanwhile the
    logit modules get gradients of zero, not none, since distributed training asks for some. Validation in that time averages too.

    Args:
        num_iters: Iterations with average pooling, >= 0.

    Raises:
        ValueError: If ``num_iters`` is negative or, when training starts, the model has no ``LIPPool2d``.
    """

    def __init__(self, num_iters: int = 2000):
        if num_iters < 0:
            raise ValueError(f'AveragePoolingWarmupHook: num_iters must be at least 0, but got {num_iters}')
        self.num_iters = num_iters
        self.handles = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        """Switch where it is time."""
        warming = runner.iter < self.num_iters
        if warming and not self.handles:
            pools = [module for module in runner.model.modules() if isinstance(module, LIPPool2d)]
            if not pools:
                raise ValueError(f'AveragePoolingWarmupHook: the model must have a LIPPool2d, but got {type(runner.model).__name__} without one')
            self.handles = [pool.logit.register_forward_hook(_level) for pool in pools]
        elif not warming and self.handles:
            for handle in self.handles:
                handle.remove()
            self.handles = []


def _level(module, args, logit):
    return 0 * logit
