"""Collect what modules return while a network runs; during training, log numbers and pictures of it."""

from abc import ABC, abstractmethod
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from torch import Tensor, nn


@contextmanager
def watch(modules: dict[str, nn.Module]):
    """Collect the output of every module while the context is open.

    Args:
        modules: Modules by the name to file them under; each returns a tensor or a list of tensors.

    Yields:
        ``{name: output}``, detached, filled in the order in which the modules run; the last run of a module counts.
    """
    outputs = {}
    handles = [
        module.register_forward_hook(lambda module, args, output, name=name: outputs.update({name: _detached(output)}))
        for name, module in modules.items()
    ]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def _detached(output):
    return [_detached(part) for part in output] if isinstance(output, (list, tuple)) else output.detach()


class WatchHook(Hook, ABC):
    """The base class of hooks that log numbers and pictures of what modules return.

    A subclass has a ``name`` and the methods :meth:`watch`, :meth:`scalars` and :meth:`draw`. With ``compile`` in the config, the iterations in
    which something is due run uncompiled: a compiled network does not call the hooks of its modules.

    Args:
        interval: Iterations between two logged numbers; use the logger's interval or a divisor of it.
        picture_interval: Iterations between two pictures of the first image of the batch, written by the runner's visualizer to its files
            or to TensorBoard. None: no pictures.
    """

    def __init__(self, interval: int = 50, picture_interval: int | None = None):
        self.interval, self.picture_interval = interval, picture_interval
        self.watching = ExitStack()

    @abstractmethod
    def watch(self, model: nn.Module):
        """Return a context that collects the outputs, such as that of :func:`watch`."""

    @abstractmethod
    def scalars(self, model: nn.Module, outputs: dict) -> dict[str, float]:
        """Compute the numbers to log from the outputs of one iteration."""

    @abstractmethod
    def draw(self, runner, image: np.ndarray, outputs: dict) -> Figure:
        """Draw the outputs for the first image of the batch, RGB ``(H, W, 3)`` of 0 to 255."""

    def _due(self, runner):
        """Whether numbers and whether a picture are due in this iteration."""
        return self.every_n_train_iters(runner, self.interval), self.every_n_train_iters(runner, self.picture_interval or 0)

    def before_train(self, runner):
        """Refuse a compiled model where torch cannot run it uncompiled for an iteration.

        Raises:
            RuntimeError: If the config compiles the model and torch is older than 2.6.
        """
        if runner.cfg.get('compile') and not hasattr(torch.compiler, 'set_stance'):
            raise RuntimeError(f'{type(self).__name__}: compile must be off with torch before 2.6, but got it on with torch {torch.__version__}')

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        """Start to collect."""
        if any(self._due(runner)):
            if runner.cfg.get('compile'):
                self.watching.enter_context(torch.compiler.set_stance('force_eager'))
            self.outputs = self.watching.enter_context(self.watch(unwrapped(runner.model)))

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        """Stop to collect and hand numbers and pictures to the logger and the visualizer."""
        self.watching.close()
        numbers, picture = self._due(runner)
        with torch.no_grad():
            if numbers:
                for name, value in self.scalars(unwrapped(runner.model), self.outputs).items():
                    runner.message_hub.update_scalar(f'train/{name}', value)
            if picture:
                canvas = FigureCanvasAgg(self.draw(runner, first_image(data_batch), self.outputs))
                canvas.draw()
                runner.visualizer.add_image(self.name, np.array(canvas.buffer_rgba())[..., :3], runner.iter + 1)


def first_image(data_batch) -> np.ndarray:
    """Return the first image of a batch as OpenMMLab's pipelines give it (BGR), before any preprocessor, as RGB ``(H, W, 3)``, uint8."""
    image: Tensor = data_batch['inputs'][0].detach().cpu()
    if image.dtype != torch.uint8:
        low, high = image.min(), image.max()
        image = (255 * (image - low) / (high - low).clamp(min=1e-12)).byte()
    rgb = image.flip(0) if image.shape[0] == 3 else image[:1].expand(3, -1, -1)
    return rgb.permute(1, 2, 0).numpy()


def unwrapped(model):
    """Return the model inside mmengine's wrapper for distributed training, if there is one."""
    return model.module if is_model_wrapper(model) else model
