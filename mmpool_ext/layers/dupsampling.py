"""Upsampling whose filters are fitted to the labels: "Decoders Matter for Semantic Segmentation", Tian et al., CVPR 2019."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn

from ..ops.tracing import top_left

FIT_COMMAND = 'python -m mmpool_ext fit_dupsampling CONFIG --ratio {ratio} --channels {channels} --out W.pth'


@MODELS.register_module()
class DUpsampling(BaseModule):
    """Turn every feature vector into an r x r window of class logits by one linear map.

    ``logit = rearrange(W x + mean) / T``: Eq. 5 and 6 of Tian et al., "Decoders Matter for Semantic Segmentation", CVPR 2019. W and the
    mean come from :func:`fit_dupsampling` and stay as they are; the temperature T is learnt, as ``start_temperature * exp(log_temperature)`` so that
    it stays positive. Rows of W run class, row, column (the order of ``pixel_shuffle``) where the paper's run row, column, class: the same map.
    The input is divided by T instead of the output, which saves a full-size tensor in the backward pass. T and a
    trainable W are learnt as changes to their initial values, so weight decay pulls towards those; the configs use no decay for T:
    ``paramwise_cfg=dict(custom_keys={'temperature': dict(decay_mult=0.)})``.

    Args:
        in_channels: Channels of the features, the columns of W (the paper's C~).
        out_channels: Number of classes C.
        scale_factor: Window edge r, the stride of the features.
        weight: File of ``tools/analysis_tools/fit_dupsampling.py``, read by ``init_weights``. A checkpoint of the whole model needs no such file.
        init: ``'fitted'``: the first forward without a fitted or loaded W is an error. ``'random'``: W is drawn with unit columns, when the layer
            is built and anew by ``init_weights``; scripts that count or time a network without weights call no ``init_weights``.
        trainable: Whether changes to W and the mean are learnt, ``weight_change`` and ``bias_change``. The paper computes W beforehand. A
            checkpoint of either kind loads into the other.
        temperature: T at the start. A checkpoint carries its own.
        learn_temperature: Whether T is learnt. False with T = 1 is the vanilla softmax of Section 4.1.4.
        hidden_channels: Width of the hidden layer of the non-linear variant (``--method autoencoder``: 4 C~). None for the linear one.
        init_cfg: As in mmengine.

    Raises:
        ValueError: If an argument is out of range, or if the file's W is of another size or kind or is not finite.
        RuntimeError: At the first forward, if W is not fitted or not finite.

    Example:
        >>> layer = DUpsampling(in_channels=8, out_channels=3, scale_factor=4, init='random')
        >>> layer.init_weights()
        >>> layer(torch.randn(1, 8, 5, 6), size=(17, 24)).shape
        torch.Size([1, 3, 17, 24])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        scale_factor: int = 16,
        weight: str | None = None,
        init: str = 'fitted',
        trainable: bool = False,
        temperature: float = 1.0,
        learn_temperature: bool = True,
        hidden_channels: int | None = None,
        init_cfg: dict | None = None,
    ):
        super().__init__(init_cfg)
        rows = out_channels * scale_factor**2
        for name, value, rule, good in (
            ('in_channels', in_channels, f'be 1 to out_channels * scale_factor ** 2 = {rows}', 1 <= in_channels <= rows),
            ('init', init, "be 'fitted' or 'random'", init in ('fitted', 'random')),
            ('weight', weight, "be None with init='random'", init == 'fitted' or weight is None),
            ('temperature', temperature, 'be positive', temperature > 0),
        ):
            if not good:
                raise ValueError(f'DUpsampling: {name} must {rule}, but got {value!r}')
        self.in_channels, self.out_channels, self.scale_factor = in_channels, out_channels, scale_factor
        self.hidden_channels, self.trainable, self.weight_file, self.init = hidden_channels, trainable, weight, init

        inner = hidden_channels or in_channels
        shapes = {'weight': (rows, inner), 'bias': (rows,), 'projection': (inner, rows), 'projection_bias': (inner,)}
        if hidden_channels:
            shapes |= {'hidden_weight': (inner, in_channels), 'hidden_bias': (inner,)}
            shapes |= {'projection_hidden_weight': (in_channels, inner), 'projection_hidden_bias': (in_channels,)}
        self._shapes = shapes
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(shape))
            if trainable and not name.startswith('projection'):
                self.register_parameter(f'{name}_change', nn.Parameter(torch.zeros(shape)))
        self.register_buffer('fitted', torch.zeros((), dtype=torch.bool))
        self._fault = self._find_fault()
        self.register_buffer('start_temperature', torch.tensor(float(temperature)))
        if learn_temperature:
            self.log_temperature = nn.Parameter(torch.zeros(()))
        else:
            self.register_buffer('log_temperature', torch.zeros(()))
        if init == 'random':
            self._draw()

    @property
    def temperature(self) -> Tensor:
        """The temperature T, a scalar."""
        return self.start_temperature * self.log_temperature.exp()

    def init_weights(self):
        """Read the fitted file, or draw W for ``init='random'``; then apply ``init_cfg``."""
        if self.weight_file is not None:
            self.load_fit(torch.load(self.weight_file, map_location='cpu', weights_only=True))
        elif self.init == 'random':
            self._draw()
        super().init_weights()

    def _draw(self):
        self._take({name: torch.randn(shape) / max(shape) ** 0.5 if len(shape) == 2 else torch.zeros(shape) for name, shape in self._shapes.items()})

    def load_fit(self, fit: dict):
        """Load the result of :func:`fit_dupsampling`.

        Args:
            fit: Its dictionary.

        Raises:
            ValueError: If it is not a result of ``fit_dupsampling``, was fitted for another ratio, class count, channel count or kind, or holds
                NaN or infinity.
        """
        missing = [name for name in ('scale_factor', 'num_classes', 'channels', 'method') if name not in fit]
        if missing:
            raise ValueError(
                f'DUpsampling: weight must be a file of fit_dupsampling, but got one without {", ".join(missing)} (it begins with '
                f'{", ".join(map(str, list(fit)[:3]))}); fit W: {self._command()}'
            )
        for name, wanted in (('scale_factor', self.scale_factor), ('num_classes', self.out_channels), ('channels', self.in_channels)):
            if fit[name] != wanted:
                raise ValueError(f'DUpsampling: {name} of W must be {wanted}, but got {fit[name]}; fit it anew: {self._command()}')
        for name, shape in self._shapes.items():
            if name not in fit or fit[name].shape != shape:
                found = tuple(fit[name].shape) if name in fit else 'none'
                raise ValueError(
                    f'DUpsampling: {name} of W must have the shape {shape} for hidden_channels={self.hidden_channels}, but got {found}'
                    f' fitted by method {fit["method"]!r}'
                )
            if not fit[name].isfinite().all():
                raise ValueError(f'DUpsampling: {name} of W must be finite, but got {int((~fit[name].isfinite()).sum())} values that are not')
        self._take(fit)

    def _take(self, fit):
        with torch.no_grad():
            for name in self._shapes:
                getattr(self, name).copy_(fit[name])
                if hasattr(self, f'{name}_change'):
                    getattr(self, f'{name}_change').zero_()
            self.fitted.fill_(True)
        self._fault = self._find_fault()

    def _command(self):
        return FIT_COMMAND.format(ratio=self.scale_factor, channels=self.in_channels)

    def _load_from_state_dict(self, state_dict, prefix, *args):
        for name in self._shapes:
            loaded, change = f'{prefix}{name}', f'{prefix}{name}_change'
            if change in state_dict and not hasattr(self, f'{name}_change'):  # saved with a trainable W: the fixed W is W plus the change
                state_dict[loaded] = state_dict[loaded] + state_dict.pop(change)
            elif (
                loaded in state_dict and change not in state_dict and hasattr(self, f'{name}_change')
            ):  # saved with a fixed W: the change starts at zero
                state_dict[change] = torch.zeros_like(state_dict[loaded])
        if f'{prefix}log_temperature' in state_dict:  # in older checkpoints log_temperature is the whole of T
            state_dict.setdefault(f'{prefix}start_temperature', torch.ones(()))
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._fault = self._find_fault()

    def _find_fault(self):
        """Return why forward must raise, or None. Called when W changes, not in ``forward``: tracing and export cannot read tensors there."""
        if self.fitted.is_meta:
            return None
        if not self.fitted:
            return (
                f"W must be fitted before the first forward, but got none; run '{self._command()}' and set weight='W.pth' (read by"
                " init_weights), or load a checkpoint, or ask for init='random'"
            )
        broken = [name for name in self._shapes if not getattr(self, name).isfinite().all()]
        return f'W must be finite, but got NaN or infinity in {", ".join(broken)}' if broken else None

    def _check(self):
        if self._fault:
            raise RuntimeError(f'DUpsampling: {self._fault}')

    def _now(self, name):
        """Return W or the mean plus its learnt change."""
        change = getattr(self, f'{name}_change', None)
        return getattr(self, name) if change is None else getattr(self, name) + change

    def forward(self, input: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Upsample.

        Args:
            input: Features ``(N, in_channels, H, W)``.
            size: Output size; the windows are cropped at the right and bottom, never stretched. None for all of them.

        Returns:
            Logits over T, ``(N, out_channels, r H, r W)`` or ``(N, out_channels, *size)``.

        Raises:
            ValueError: If ``size`` is larger than the windows cover, or leaves a whole row or column of them out.
        """
        self._check()
        inverse, r = (-self.log_temperature).exp() / self.start_temperature, self.scale_factor
        input = input.movedim(1, -1).contiguous()
        if self.hidden_channels:
            input = F.linear(input, self._now('hidden_weight'), self._now('hidden_bias')).relu()
        output = F.linear(input * inverse, self._now('weight'), self._now('bias') * inverse)
        # Channels last, so that the rearrangement moves runs of r values; a 1x1 convolution and pixel_shuffle give the same in twice the time.
        output = output.unflatten(-1, (self.out_channels, r, r)).permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)
        return output if size is None else crop(output, size, r)

    def compress(self, label: Tensor, ignore_index: int = 255) -> tuple[Tensor, Tensor]:
        """Compress labels to what :meth:`forward` would restore: the targets of Eq. 4.

        Args:
            label: Class indices ``(N, H, W)``; padded at the right and bottom to whole windows.
            ignore_index: Label of void pixels, which become all-zero one-hot vectors.

        Returns:
            Targets ``(N, in_channels, ceil(H / r), ceil(W / r))`` and the mask ``(N, 1, ...)`` of windows that hold a labelled pixel.
        """
        self._check()
        r = self.scale_factor
        label = F.pad(label, (0, -label.shape[-1] % r, 0, -label.shape[-2] % r), value=ignore_index)
        valid = label != ignore_index
        classes = torch.arange(self.out_channels, device=label.device).view(-1, 1, 1)
        onehot = ((label.unsqueeze(1) == classes) & valid.unsqueeze(1)).to(self.projection)  # ignore_index may be the number of a class
        value = F.conv2d(F.pixel_unshuffle(onehot, r), self.projection[..., None, None], self.projection_bias)
        if self.hidden_channels:
            value = F.conv2d(value.relu(), self.projection_hidden_weight[..., None, None], self.projection_hidden_bias)
        return value, F.max_pool2d(valid.unsqueeze(1).to(value), r) > 0

    def extra_repr(self) -> str:
        """Describe the layer in ``print(model)``."""
        return (
            f'{self.in_channels}, {self.out_channels}, scale_factor={self.scale_factor}, trainable={self.trainable}, '
            f'hidden_channels={self.hidden_channels}'
        )


def crop(output: Tensor, size: Sequence[int], window: int) -> Tensor:
    """Keep the top left ``size`` of a map of whole windows, every one of which must begin inside of it.

    Raises:
        ValueError: If the windows do not cover ``size``, or overhang it by a window or more: the features have another stride then, and what
            is kept would be a part of the scene stretched over the whole image.
    """
    overhang = [covered - wanted for covered, wanted in zip(output.shape[-2:], size, strict=True)]
    if not all(0 <= over < window for over in overhang):
        rounded_down = all(-window <= over < window for over in overhang)
        hint = (
            'the backbone rounds sizes down, so pad images to whole strides: data_preprocessor=dict(test_cfg=dict(size_divisor=STRIDE)), and in'
            ' training size or size_divisor'
            if rounded_down
            else 'scale_factor must be the stride of the features'
        )
        raise ValueError(
            f'DUpsampling: the windows must cover the size asked for and overhang it by less than a window ({window}), but got '
            f'{tuple(output.shape[-2:])} for {tuple(size)}; {hint}'
        )
    return top_left(output, size)
