"""VGG with another pooling, fully convolutional: the trunk of the P-pooling paper's Tables 1, 2, 3, 5 and 6."""

from itertools import accumulate
from operator import mul

import torch
from torch import nn
from torch.nn.utils import skip_init
from torchvision.models import vgg

from .pool import build_pool
from .staged import StagedBackbone, convert, refuse_unknown

OUTPUT_STRIDES = {8: (2, 2, 2, 1, 1), 16: (2, 2, 2, 2, 1), 32: (2, 2, 2, 2, 2)}


class PPoolVGG(StagedBackbone):
    """VGG whose poolings are given by a config, with its fully connected layers as convolutions.

    Wei et al., "Building Detail-Sensitive Semantic Segmentation Networks with Polynomial Pooling", CVPR 2019, Sec. 4.1: "the stride in pool5
    layer is removed", for an output stride of 16. Poolings are 2x2; those without a stride are 3x3, which keeps the size. Torchvision's VGG
    checkpoints load: ``features.*`` under their own names, ``classifier.0`` and ``classifier.3`` as ``fc6`` and ``fc7``, thinned out evenly
    where those are smaller, as DeepLab's authors did for their VGG16-20M ("1,024 channels, 3x3 kernels", Sec. 4.2).

    Args:
        pool: Config of the pooling layers. None is 'Strided-C': the last convolution before each pool takes its stride.
        depth: 11, 13, 16 or 19.
        pool_stages: The stages whose pooling is replaced, 0 for pool1 to 4 for pool5; the others keep max pooling (Table 6).
        output_stride: 32, 16 (pool5 has no stride) or 8 (nor has pool4, and conv5 is dilated by 2).
        fc_channels: Channels of fc6 and fc7: 4096, or 1024 for VGG16-20M.
        fc6_kernel_size: Kernel of fc6: 7, or 3 for VGG16-20M.
        fc6_dilation: Dilation of fc6, for a large field of view.
        out_indices: Outputs among 0 to 4, pool1 to pool5, and 5, fc7.
        frozen_stages: How many of the first stages are not trained; -1 and 0 are none.
        in_channels: Channels of the image. Other than 3, the first convolution starts fresh beside a usual checkpoint.
        conv_cfg: Config of the convolutions before fc6.
        with_cp: Whether stages are computed again in the backward pass.
        pretrained: Checkpoint.
        init_cfg: Initialisation config.

    Raises:
        ValueError: If ``depth``, ``output_stride`` or a stage is none of those.
    """

    def __init__(
        self,
        pool: dict | None,
        depth: int = 16,
        pool_stages: tuple[int, ...] = (0, 1, 2, 3, 4),
        output_stride: int = 16,
        fc_channels: int = 4096,
        fc6_kernel_size: int = 7,
        fc6_dilation: int = 1,
        out_indices: tuple[int, ...] = (5,),
        frozen_stages: int = -1,
        in_channels: int = 3,
        conv_cfg: dict | None = None,
        with_cp: bool = False,
        pretrained: str | None = None,
        init_cfg: dict | list | None = None,
        **unknown,
    ):
        refuse_unknown(type(self), unknown)  # norm_eval is among them here
        super().__init__(out_indices, frozen_stages, with_cp=with_cp, pretrained=pretrained, init_cfg=init_cfg)
        depths = {11: 'A', 13: 'B', 16: 'D', 19: 'E'}
        if depth not in depths:
            raise ValueError(f'PPoolVGG: depth must be one of {list(depths)}, but got {depth}')
        if output_stride not in OUTPUT_STRIDES:
            raise ValueError(f'PPoolVGG: output_stride must be one of {list(OUTPUT_STRIDES)}, but got {output_stride}')
        if not set(pool_stages) <= set(range(5)):
            raise ValueError(f'PPoolVGG: pool_stages must be among 0 to 4, but got {tuple(pool_stages)}')
        self.features = vgg.make_layers(vgg.cfgs[depths[depth]])
        convert(self.features, in_channels, conv_cfg)
        stages = self._replace_pools(pool, pool_stages, OUTPUT_STRIDES[output_stride])
        if output_stride == 8:
            for layer in map(self.get_submodule, stages[4]):
                if isinstance(layer, nn.Conv2d):
                    layer.dilation = layer.padding = (2, 2)
        padding = fc6_dilation * (fc6_kernel_size // 2)
        self.fc6 = skip_init(nn.Conv2d, 512, fc_channels, fc6_kernel_size, padding=padding, dilation=fc6_dilation)  # drawn below, if it is in use
        self.fc7 = skip_init(nn.Conv2d, fc_channels, fc_channels, 1)
        self.relu6, self.relu7 = nn.ReLU(), nn.ReLU()
        self.drop6, self.drop7 = nn.Dropout(), nn.Dropout()
        channels = [width for width, after in zip(vgg.cfgs[depths[depth]], vgg.cfgs[depths[depth]][1:], strict=False) if after == 'M']
        steps = list(accumulate(OUTPUT_STRIDES[output_stride], mul))
        self.set_stages([*stages, ['fc6', 'relu6', 'drop6', 'fc7', 'relu7', 'drop7']], [*channels, fc_channels], [*steps, steps[-1]])
        for layer in [*self.features, *self.children()]:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode='fan_out', nonlinearity='relu')
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        self._register_load_state_dict_pre_hook(_convolve_classifier, with_module=True)

    def _replace_pools(self, pool, pool_stages, strides):
        """Put the poolings into ``features``; return the names of each stage's layers."""
        stages = [[]]
        for index, layer in enumerate(self.features):
            stages[-1].append(f'features.{index}')
            if not isinstance(layer, nn.MaxPool2d):
                continue
            conv = self.features[index - 2]  # before the pool and a ReLU
            stage = len(stages) - 1
            stride = strides[stage]
            window = dict(kernel_size=2, stride=2) if stride == 2 else dict(kernel_size=3, stride=1, padding=1)
            if stage not in pool_stages:
                self.features[index] = nn.MaxPool2d(**window)
            elif pool is None:
                conv.stride = (stride, stride)
                self.features[index] = nn.Identity()
            else:
                # All-C's 3x3 windows round odd sizes up where 2x2 ones round them down
                self.features[index] = build_pool(pool, conv.out_channels, **window, owner='PPoolVGG', step=2)
            stages.append([])
        return stages[:-1]


def _convolve_classifier(module, state_dict, prefix, *_):
    """Turn the fully connected layers of an image classifier into fc6 and fc7, where the network has these."""
    for old, new in (('classifier.0', 'fc6'), ('classifier.3', 'fc7'), ('classifier.6', None)):
        weight, bias = (state_dict.pop(f'{prefix}{old}.{part}', None) for part in ('weight', 'bias'))
        if weight is None or new is None or not hasattr(module, new):
            continue
        conv = getattr(module, new)
        edge = 7 if new == 'fc6' else 1
        weight = weight.unflatten(1, (-1, edge, edge))
        rows = _evenly(len(weight), conv.out_channels)
        columns = _evenly(weight.shape[1], conv.in_channels)
        pixels = torch.linspace(0, edge - 1, conv.kernel_size[0]).round().long()
        state_dict[f'{prefix}{new}.weight'] = weight[rows][:, columns][:, :, pixels][..., pixels]
        state_dict[f'{prefix}{new}.bias'] = bias[rows]


def _evenly(count, kept):
    return torch.arange(kept) * count // kept
