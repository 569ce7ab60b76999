"""Local importance-based pooling with its logit modules (Gao et al., "LIP", ICCV 2019)."""

import torch
import torch.nn.functional as F
from mmcv.cnn import build_norm_layer
from mmengine.model import BaseModule, kaiming_init
from mmengine.registry import MODELS
from torch import nn

from ..ops import gated_lip_pool2d, instance_norm_relu, lip_pool2d
from ..ops._extension import check_backend, use_native
from ..ops.gated_lip_pool import MAX_GATE_SCALE
from ..ops.window import pair, wide
from .window_pool import without_autocast


def is_plain_norm(norm: nn.Module) -> bool:
    """Tell whether a fused op may compute ``norm``: an affine instance normalization without running statistics whose calls nobody watches."""
    return type(norm) is nn.InstanceNorm2d and norm.affine and not norm.track_running_stats and not is_watched(norm)


def is_watched(module: nn.Module) -> bool:
    """Tell whether hooks expect the module to be called."""
    return any((module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks))


@MODELS.register_module()
class ProjectionLogit(BaseModule):
    """Logit ``gate_scale * sigmoid(norm(conv(x)))`` of one convolution: the paper's projection form (Fig. 4d).

    The convolution starts at zero, so the logit starts constant and the pooling starts as average pooling (paper 4.1).
    Under autocast, normalisation and gate stay in float32: bfloat16 steps by 0.06 above 8, and a logit is an exponent.

    Args:
        in_channels: Channels of the features that the logit is computed from.
        out_channels: Channels of the map to be pooled. Default: ``in_channels``.
        kernel_size: Edge of the convolution, odd.
        dilation: Dilation of the convolution.
        norm_cfg: Top normalisation (paper Table 2, "Affined IN"), or None for none.
        gate_scale: Amplification of the sigmoid (paper Table 2, "Amplified sigmoid"), or None for no gate.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int | None = None,
        kernel_size: int = 1,
        dilation: int = 1,
        norm_cfg: dict | None = dict(type='IN', affine=True),
        gate_scale: float | None = 12.0,
        init_cfg: dict | None = None,
    ):
        super().__init__(init_cfg)
        out_channels = out_channels or in_channels
        self.gate_scale = gate_scale
        padding = dilation * (kernel_size // 2)
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding, dilation=dilation, bias=False)
        self.norm = build_norm_layer(norm_cfg, out_channels)[1] if norm_cfg else nn.Identity()
        nn.init.zeros_(self.conv.weight)

    def init_weights(self):
        """Zero the convolution again, since a parent's initialisation of all convolutions has run over it; then apply ``init_cfg``."""
        nn.init.zeros_(self.conv.weight)
        super().init_weights()

    @property
    def fuses(self) -> bool:
        """Whether :func:`gated_lip_pool2d` computes what this module does behind its convolution, and no hook expects its call."""
        known = type(self.norm) is nn.Identity or is_plain_norm(self.norm)
        return known and self.gate_scale is not None and 0 < self.gate_scale <= MAX_GATE_SCALE and not is_watched(self)

    def forward(self, features):
        """Compute the logit ``(N, out_channels, H, W)`` of ``features`` ``(N, in_channels, H, W)``; at least float32."""
        logit = self.conv(features)
        with without_autocast(logit):
            logit = self.norm(logit.to(self.conv.weight.dtype))
            logit = wide(logit)
            return logit if self.gate_scale is None else self.gate_scale * logit.sigmoid()


@MODELS.register_module()
class SimplifiedLogit(ProjectionLogit):
    """The 3x3 form that LIP-ResNet and LIP-DenseNet have in the stem (paper 3.3). Arguments: :class:`ProjectionLogit`."""

    def __init__(self, in_channels: int, out_channels: int | None = None, kernel_size: int = 3, **kwargs):
        super().__init__(in_channels, out_channels, kernel_size, **kwargs)


class BottleneckTrunk(BaseModule):
    """First two convolutions of the bottleneck form (Fig. 4e): ``1x1, IN, ReLU, 3x3, IN, ReLU``.

    LIP-ResNet shares one trunk between a block's residual and shortcut branch (paper 3.3).

    Args:
        in_channels: Channels of the features.
        mid_channels: Channels of both convolutions: the x of "Bottleneck-x".
        dilation: Dilation of the 3x3 convolution.
        backend: See :func:`mmpool_ext.ops.instance_norm_relu`, which computes each ``IN, ReLU`` where no hook expects the norm's call.
    """

    def __init__(self, in_channels: int, mid_channels: int = 128, dilation: int = 1, backend: str = 'auto', init_cfg: dict | None = None):
        super().__init__(init_cfg)
        check_backend('BottleneckTrunk', backend)
        self.backend = backend
        self.conv1 = nn.Conv2d(in_channels, mid_channels, 1, bias=False)
        self.norm1 = nn.InstanceNorm2d(mid_channels, affine=True)
        self.conv2 = nn.Conv2d(mid_channels, mid_channels, 3, padding=dilation, dilation=dilation, bias=False)
        self.norm2 = nn.InstanceNorm2d(mid_channels, affine=True)
        self.fan = 'fan_out'  # as the authors' ResNet

    def init_weights(self):
        """Draw the convolutions, then apply ``init_cfg``."""
        self.draw()
        super().init_weights()

    def draw(self):
        """Draw the convolutions from Kaiming's normal distribution."""
        kaiming_init(self.conv1, mode=self.fan)
        kaiming_init(self.conv2, mode=self.fan)

    def forward(self, features):
        """Map ``(N, in_channels, H, W)`` to ``(N, mid_channels, H, W)``."""
        features = self._norm_relu(self.norm1, self.conv1(features))
        return self._norm_relu(self.norm2, self.conv2(features))

    def _norm_relu(self, norm, features):
        if is_plain_norm(norm) and use_native('instance_norm_relu', self.backend, features):
            return instance_norm_relu(features, norm.weight, norm.bias, norm.eps)
        return F.relu(norm(features))  # in place, a backward hook of the norm would fail


@MODELS.register_module()
class BottleneckLogit(BaseModule):
    """Bottleneck form (Fig. 4e) whole: a :class:`BottleneckTrunk`, then a :class:`ProjectionLogit`.

    Args:
        in_channels: Channels of the features that the logit is computed from.
        out_channels: Channels of the map to be pooled. Default: ``in_channels``.
        mid_channels: The x of "Bottleneck-x"; the paper studies 64, 128 and 256.
        dilation: Dilation of the 3x3 convolution.
        norm_cfg: See :class:`ProjectionLogit`.
        gate_scale: See :class:`ProjectionLogit`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int | None = None,
        mid_channels: int = 128,
        dilation: int = 1,
        norm_cfg: dict | None = dict(type='IN', affine=True),
        gate_scale: float | None = 12.0,
        init_cfg: dict | None = None,
    ):
        super().__init__(init_cfg)
        self.trunk = BottleneckTrunk(in_channels, mid_channels, dilation)
        self.top = ProjectionLogit(mid_channels, out_channels or in_channels, norm_cfg=norm_cfg, gate_scale=gate_scale)

    def forward(self, features):
        """Compute the logit ``(N, out_channels, H, W)`` of ``features`` ``(N, in_channels, H, W)``."""
        return self.top(self.trunk(features))


@MODELS.register_module()
class LIPPool2d(BaseModule):
    """Local importance-based pooling whose logit is learnt from the features. See :func:`mmpool_ext.ops.lip_pool2d`.

    Args:
        in_channels: Channels of the map to be pooled.
        kernel_size: Window edge in pixels, not below ``stride``: every pixel must be in some window (paper 3.2).
        stride: Step of the window in pixels.
        padding: Rim in pixels; it takes no weight.
        ceil_mode: Round the output size up instead of down.
        dilation: Step between the pixels of a window.
        logit: Config of the logit module; ``in_channels`` and ``out_channels`` are filled in. Any registered module that maps
            features to logits serves: :class:`ProjectionLogit`, :class:`SimplifiedLogit`, :class:`BottleneckLogit`. With these, where they end in the
            paper's gate, normalization and gate are computed by the pooling (:func:`mmpool_ext.ops.gated_lip_pool2d`) if it is compiled for the
            device: the same to rounding, with less time and memory.
        backend: See :func:`mmpool_ext.ops.lip_pool2d`.

    Raises:
        ValueError: If the window is smaller than the stride, the logit module is not registered, or there is no such backend.
    """

    def __init__(
        self,
        in_channels: int,
        kernel_size: int | tuple[int, int] = 3,
        stride: int | tuple[int, int] = 2,
        padding: int | tuple[int, int] = 1,
        *,
        ceil_mode: bool = False,
        dilation: int | tuple[int, int] = 1,
        logit: dict = dict(type='SimplifiedLogit'),
        backend: str = 'auto',
        init_cfg: dict | None = None,
    ):
        super().__init__(init_cfg)
        edges, steps = pair('LIPPool2d', 'kernel_size', kernel_size, 1), pair('LIPPool2d', 'stride', stride, 1)
        if any(edge < step for edge, step in zip(edges, steps, strict=True)):
            raise ValueError(f'LIPPool2d: kernel_size must be at least stride, but got kernel_size {kernel_size} and stride {stride}')
        check_backend('LIPPool2d', backend)
        with MODELS.switch_scope_and_registry(None) as registry:  # the codebase's, whose modules are no children of the root's
            if isinstance(logit.get('type'), str) and registry.get(logit['type']) is None:
                known = 'ProjectionLogit, SimplifiedLogit, BottleneckLogit'
                raise ValueError(f'LIPPool2d: logit must have a registered type ({known} are), but got {logit["type"]!r}')
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding
        self.ceil_mode, self.dilation, self.backend = ceil_mode, dilation, backend
        self.logit = MODELS.build(dict(dict(in_channels=in_channels, out_channels=in_channels), **logit))

    def forward(self, input, features=None):
        """Pool ``input`` ``(N, C, H, W)`` by the logit of ``features`` ``(N, C', H, W)``; without ``features``, of ``input`` itself."""
        features = input if features is None else features
        window = dict(
            kernel_size=self.kernel_size,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            ceil_mode=self.ceil_mode,
            backend=self.backend,
        )
        top = self._fused_logit(input)
        if top is None:
            return lip_pool2d(input, self.logit(features), **window)
        response = top.conv(features if top is self.logit else self.logit.trunk(features))
        if response.dtype not in (input.dtype, torch.float32):
            response = response.to(torch.promote_types(input.dtype, torch.float32))
        weight, bias, eps = (top.norm.weight, top.norm.bias, top.norm.eps) if isinstance(top.norm, nn.InstanceNorm2d) else (None, None, 0.0)
        return gated_lip_pool2d(input, response, weight, bias, top.gate_scale, eps, **window)

    def _fused_logit(self, input):
        """The part of the logit module whose normalization and gate the pooling computes, or None where the module has to be called."""
        logit = self.logit
        top = logit.top if type(logit) is BottleneckLogit else logit
        fuses = type(top) in (ProjectionLogit, SimplifiedLogit) and not is_watched(logit) and top.fuses
        return top if fuses and use_native('gated_lip_pool2d', self.backend, input) else None

    def extra_repr(self):
        """The window, for ``print``."""
        return f'kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, dilation={self.dilation}, ceil_mode={self.ceil_mode}'
