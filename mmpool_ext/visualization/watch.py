"""What modules put out, collected while a network runs."""

from contextlib import contextmanager

from torch import nn


@contextmanager
def watch(modules: dict[str, nn.Module]):
    """Collect the output of every module while the context is open.

    Args:
        modules: Modules by the name to file them under; each puts out one tensor.

    Yields:
        ``{name: output}``, detached, filled in the order in which the modules run; the last run of a module counts.
    """
    outputs = {}
    handles = [
        module.register_forward_hook(lambda module, args, output, name=name: outputs.update({name: output.detach()}))
        for name, module in modules.items()
    ]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()
