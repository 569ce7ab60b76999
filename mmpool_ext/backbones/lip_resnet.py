"""LIP-ResNet (Gao et al., "LIP: Local Importance-based Pooling", ICCV 2019, section 3.3)."""

import torch.utils.checkpoint
from mmcv.cnn import build_conv_layer, build_norm_layer, build_plugin_layer
from mmengine.model import BaseModule, Sequential, constant_init
from mmengine.registry import MODELS
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..layers import AveragePool2d, BottleneckLogit, BottleneckTrunk, LIPPool2d
from .checkpoint import CheckpointReport, is_initialising, is_pretrained, report_checkpoint, report_later_checkpoints
from .pool import check_size, class_of, refuse_small
from .staged import refuse_unknown


class Bottleneck(BaseModule):
    """ResNet's bottleneck block; with ``pool`` the downsampling block of the LIP paper's Fig. 4b (LIP) or 4c (another pooling).

    With ``pool``, the residual branch is ``1x1, pool, 1x1, 1x1`` (the second 1x1 stands for the strided 3x3) and the shortcut ``pool, 1x1``.

    Args:
        inplanes: Input channels.
        planes: Channels of the first two convolutions; the output has four times as many.
        stride: Step of the block in pixels.
        dilation: Dilation of the 3x3 convolution or, with ``pool``, of the window and of the logit's 3x3 convolution.
        pool: Config of the pooling layer, or None for the strided block.
        logit: Config of the logit module when ``pool`` is a LIP. A ``BottleneckLogit`` shares its trunk between both branches.
        pool_output: Pool the output of the plain block by ``stride`` instead, after its ReLU and in windows without overlap.
        style: ``'pytorch'`` puts the stride on the 3x3 convolution, ``'caffe'`` on the first 1x1.
        avg_down: Shortcut of the strided block by average pooling and an unstrided convolution.
        conv_cfg: Config of the convolutions.
        norm_cfg: Config of the normalisations.
        dcn: Config of a deformable convolution in the place of the 3x3.
        plugins: List of ``dict(cfg=..., position='after_conv1' | 'after_conv2' | 'after_conv3')``.
        with_cp: Recompute the block in the backward pass instead of keeping its activations.
        init_cfg: Initialisation config.
    """

    expansion = 4

    def __init__(
        self,
        inplanes,
        planes,
        stride=1,
        dilation=1,
        pool=None,
        logit=None,
        pool_output=False,
        style='pytorch',
        avg_down=False,
        conv_cfg=None,
        norm_cfg=dict(type='BN'),
        dcn=None,
        plugins=(),
        with_cp=False,
        init_cfg=None,
    ):
        super().__init__(init_cfg)
        self.with_cp = with_cp
        outplanes = planes * self.expansion
        self.output_pool = None
        if pool_output:
            top = {} if logit is None else dict(logit=logit)
            place = dict(in_channels=outplanes, kernel_size=stride, stride=stride, padding=0, ceil_mode=True)
            self.output_pool = MODELS.build({**place, **top, **pool})
            check_size(self.output_pool, pool, place, 'LIPResNet')
            pool, stride = None, 1
        conv1_stride, conv2_stride = (1, stride) if style == 'pytorch' else (stride, 1)

        def add_norm(channels, postfix):
            name, norm = build_norm_layer(norm_cfg, channels, postfix=postfix)
            self.add_module(name, norm)
            return name

        self.conv1 = build_conv_layer(conv_cfg, inplanes, planes, 1, stride=conv1_stride, bias=False)
        self.norm1_name = add_norm(planes, 1)
        if pool is not None:
            self._add_pools(inplanes, planes, stride, dilation, pool, logit)
            self.conv2 = build_conv_layer(conv_cfg, planes, planes, 1, bias=False)
        else:
            dcn = dict(dcn) if dcn else None
            fallback = dcn.pop('fallback_on_stride', False) if dcn else False
            cfg = conv_cfg if dcn is None or (fallback and stride > 1) else dcn
            self.conv2 = build_conv_layer(cfg, planes, planes, 3, stride=conv2_stride, padding=dilation, dilation=dilation, bias=False)
        self.norm2_name = add_norm(planes, 2)
        self.conv3 = build_conv_layer(conv_cfg, planes, outplanes, 1, bias=False)
        self.norm3_name = add_norm(outplanes, 3)
        self.relu = nn.ReLU()

        self.with_pool = pool is not None
        self.downsample = None
        if stride != 1 or inplanes != outplanes or self.with_pool:
            layers = []
            if avg_down and stride > 1 and not self.with_pool:
                layers.append(AveragePool2d(inplanes, stride, stride, ceil_mode=True))
            conv_stride = 1 if avg_down or self.with_pool else stride
            layers.append(build_conv_layer(conv_cfg, inplanes, outplanes, 1, stride=conv_stride, bias=False))
            layers.append(build_norm_layer(norm_cfg, outplanes)[1])
            self.downsample = Sequential(*layers)

        self.plugin_names = {f'after_conv{i}': [] for i in (1, 2, 3)}
        for index, plugin in enumerate(plugins):
            channels = outplanes if plugin['position'] == 'after_conv3' else planes
            cfg = dict(plugin['cfg'])
            name, layer = build_plugin_layer(cfg, in_channels=channels, postfix=cfg.pop('postfix', f'_{index}'))
            self.add_module(name, layer)
            self.plugin_names[plugin['position']].append(name)

    def _add_pools(self, inplanes, planes, stride, dilation, pool, logit):
        """Add the poolings of both branches and, for the bottleneck logit, the trunk that they share."""
        window = dict(kernel_size=3, stride=stride, padding=dilation)
        if dilation > 1:
            window['dilation'] = dilation
        top, channels = {}, None
        self.logit_trunk = None
        if logit is not None:
            top = dict(logit=logit)
            if class_of(logit, 'LIPResNet', 'logit') is BottleneckLogit:
                head = dict(logit, type='ProjectionLogit')
                channels = head.pop('mid_channels', 128)
                self.logit_trunk = BottleneckTrunk(inplanes, channels, dilation)
                top = dict(logit=dict(head, in_channels=channels))
            elif dilation > 1:
                top = dict(logit=dict(logit, dilation=dilation))
        for name, width in (('pool2', planes), ('downsample_pool', inplanes)):
            place = dict(in_channels=width, **window)
            self.add_module(name, MODELS.build({**place, **top, **pool}))
            check_size(self.get_submodule(name), pool, place, 'LIPResNet', None if self.logit_trunk is None else channels)

    @property
    def norm1(self):
        """Normalisation after ``conv1``."""
        return getattr(self, self.norm1_name)

    @property
    def norm2(self):
        """Normalisation after ``conv2``."""
        return getattr(self, self.norm2_name)

    @property
    def norm3(self):
        """Normalisation after ``conv3``, before the addition."""
        return getattr(self, self.norm3_name)

    def init_weights(self):
        """Let a deformable convolution start undeformed: an initialisation of all convolutions has run over its offsets."""
        super().init_weights()
        if hasattr(self.conv2, 'conv_offset'):
            constant_init(self.conv2.conv_offset, 0)

    def _plug(self, x, position):
        for name in self.plugin_names[position]:
            x = getattr(self, name)(x)
        return x

    def _residual_and_shortcut(self, x):
        out = self._plug(self.relu(self.norm1(self.conv1(x))), 'after_conv1')
        identity = x
        if self.with_pool:
            features = () if self.logit_trunk is None else (self.logit_trunk(x),)
            out = self.pool2(out, *features)
            identity = self.downsample_pool(x, *features)
        out = self._plug(self.relu(self.norm2(self.conv2(out))), 'after_conv2')
        out = self._plug(self.norm3(self.conv3(out)), 'after_conv3')
        if self.downsample is not None:
            identity = self.downsample(identity)
        return out + identity

    def forward(self, x):
        """Map ``(N, inplanes, H, W)`` to ``(N, 4 * planes, H / stride, W / stride)``, rounded up."""
        if self.with_cp and x.requires_grad:
            out = torch.utils.checkpoint.checkpoint(self._residual_and_shortcut, x, use_reentrant=False)
        else:
            out = self._residual_and_shortcut(x)
        out = self.relu(out)
        return out if self.output_pool is None else self.output_pool(out)


def check(ok: bool, rule: str, value) -> None:
    """Raise unless an argument of :class:`LIPResNet` keeps to its rule.

    Raises:
        ValueError: If it does not.
    """
    if not ok:
        raise ValueError(f'LIPResNet: {rule}, but got {value}')


def with_pretrained(pretrained: str | None, init_cfg: dict | list | None) -> dict | list:
    """Initialisation config: the default one for everything, before a checkpoint if there is one, or another in its place."""
    cfg = dict(type='Pretrained', checkpoint=pretrained) if pretrained else init_cfg
    defaults: list[dict] = [dict(type='Kaiming', layer='Conv2d'), dict(type='Constant', val=1, layer=['_BatchNorm', 'GroupNorm'])]
    if cfg is None:
        return defaults
    return [*defaults, cfg] if isinstance(cfg, dict) and is_pretrained(cfg) else cfg


@MODELS.register_module()
class LIPResNet(BaseModule):
    """ResNet whose downsampling is LIP: the stem's max pooling and each stage's strided convolutions (paper Fig. 4b, 7 LIPs).

    With ``pool=dict(type='AveragePool2d')`` it is the paper's average-pooling baseline (Fig. 4c), with ``DetailPreservingPool2d`` Table 1's DPP in
    the baseline structure or, with ``stem_lip=False, pool_block_output=True``, in the original one; with ``stage_with_lip=(False,) * 4`` and
    ``stem_lip=False`` the plain ResNet (Table 3 E). Keys are torchvision's where the layers are. A stage with stride 1
    (``strides=(1, 2, 1, 1)``) keeps its LIP: window and logit dilate as the replaced 3x3 would, so that weights of the stride-32 network fit.
    InstanceNorm in the logit looks at the whole padded image. ``out_channels`` and ``out_strides`` are those of the returned maps.

    Args:
        depth: 50, 101 or 152 as the paper; 14 and 26 (one and two blocks a stage) for small work.
        in_channels: Channels of the image. Other than 3, the first convolution starts fresh beside a usual checkpoint.
        stem_channels: Channels of the stem. Default: ``base_channels``.
        base_channels: ``planes`` of the first stage.
        num_stages: Number of stages, 1 to 4.
        strides: Stride of each stage's first block.
        dilations: Dilation of each stage.
        contract_dilation: Halve the dilation of a stage's first block, whose input is still at the denser step.
        multi_grid: Dilations of the last stage's blocks, in the place of ``dilations[-1]``.
        out_indices: Stages to return. Stages after the last of them are not built, since their parameters would never get a gradient.
        style: ``'pytorch'``; ``'caffe'`` is for networks without any LIP.
        deep_stem: Three 3x3 convolutions in the place of the 7x7.
        avg_down: Average pooling in the shortcut; for networks without any LIP.
        frozen_stages: -1 freezes nothing, 0 the stem with its pooling, n the stem and the first n stages.
        conv_cfg: Config of the convolutions.
        norm_cfg: Config of the normalisations (those inside logit modules are InstanceNorm always).
        norm_eval: Keep batch normalisation in eval mode, except behind convolutions that a partly fitting checkpoint left fresh. The checkpoints
            of such a training note which these are: a resume and ``load_from`` go on with them; the backbone's own ``init_cfg`` takes all as loaded.
        dcn: Config of deformable convolutions for the 3x3s, for example ``dict(type='DCN', deform_groups=1)``.
        stage_with_dcn: Which stages have them.
        plugins: As upstream: list of ``dict(cfg=..., stages=(...), position=...)``.
        with_cp: Recompute blocks in the backward pass.
        zero_init_residual: Start each block as its shortcut.
        stage_with_lip: Which stages' first blocks pool (paper Table 3). Default: all but the first.
        stem_lip: Whether the stem pools by ``pool``; else by max pooling.
        pool: Config of the pooling layer. A window that it sets holds for all places and must keep their output sizes; a ``logit`` in it is the
            network's.
        pool_block_output: Run the blocks of ``stage_with_lip`` at stride 1 and pool their outputs in 2x2 windows without overlap, as
            the authors of detail-preserving pooling do.
        logit: Config of the logit module when ``pool`` is a ``LIPPool2d``. Default: ``dict(type='BottleneckLogit', mid_channels=128)``.
        stem_logit: The same for the stem. Default: ``SimplifiedLogit`` for the bottleneck form, else ``logit``.
        pretrained: Checkpoint file, the old spelling of ``init_cfg=dict(type='Pretrained', checkpoint=...)``.
        init_cfg: Initialisation. A ``Pretrained`` config is loaded after the default initialisation of everything.
        **unknown: Not allowed: arguments that a config inherits from another backbone.

    Raises:
        TypeError: If there are unknown arguments.
        ValueError: For an unsupported depth, stage count, index or combination.

    Example:
        >>> import torch
        >>> from mmpool_ext import LIPResNet
        >>> network = LIPResNet(14, base_channels=8)
        >>> [tuple(level.shape) for level in network(torch.rand(1, 3, 64, 64))]
        [(1, 32, 16, 16), (1, 64, 8, 8), (1, 128, 4, 4), (1, 256, 2, 2)]
    """

    stage_blocks = {  # noqa: RUF012
        14: (1, 1, 1, 1),
        26: (2, 2, 2, 2),
        50: (3, 4, 6, 3),
        101: (3, 4, 23, 3),
        152: (3, 8, 36, 3),
    }

    def __init__(
        self,
        depth: int,
        in_channels: int = 3,
        stem_channels: int | None = None,
        base_channels: int = 64,
        num_stages: int = 4,
        strides: tuple[int, ...] = (1, 2, 2, 2),
        dilations: tuple[int, ...] = (1, 1, 1, 1),
        contract_dilation: bool = False,
        multi_grid: tuple[int, ...] | None = None,
        out_indices: tuple[int, ...] = (0, 1, 2, 3),
        style: str = 'pytorch',
        deep_stem: bool = False,
        avg_down: bool = False,
        frozen_stages: int = -1,
        conv_cfg: dict | None = None,
        norm_cfg: dict = dict(type='BN', requires_grad=True),
        norm_eval: bool = False,
        dcn: dict | None = None,
        stage_with_dcn: tuple[bool, ...] = (False, False, False, False),
        plugins: list[dict] | None = None,
        with_cp: bool = False,
        zero_init_residual: bool = True,
        stage_with_lip: tuple[bool, ...] | None = None,
        stem_lip: bool = True,
        pool: dict = dict(type='LIPPool2d'),
        pool_block_output: bool = False,
        logit: dict | None = None,
        stem_logit: dict | None = None,
        pretrained: str | None = None,
        init_cfg: dict | list[dict] | None = None,
        **unknown,
    ):
        refuse_unknown(type(self), unknown)
        if stage_with_lip is None:
            stage_with_lip = (False, True, True, True)[:num_stages]
        is_lip = class_of(pool, 'LIPResNet') is LIPPool2d
        if is_lip and 'logit' in pool:
            check(logit is None, 'logit must be None beside a logit in pool', logit)
            logit = pool['logit']
            pool = {name: value for name, value in pool.items() if name != 'logit'}
        entries = dict(strides=strides, dilations=dilations, stage_with_lip=stage_with_lip, **(dict(stage_with_dcn=stage_with_dcn) if dcn else {}))
        self._check_stages(depth, num_stages, out_indices, frozen_stages, multi_grid, entries)
        pools = any(stage_with_lip)
        check(style in ('pytorch', 'caffe'), "style must be 'pytorch' or 'caffe'", repr(style))
        ok = style == 'pytorch' or not (stem_lip or pools)
        check(ok, "style must be 'pytorch' where a LIP takes the place of the strided convolution", repr(style))
        check(not (pools and avg_down), 'avg_down must be False where a LIP downsamples the shortcut', avg_down)
        ok = not pool_block_output or all(stride == 2 for stride, lip in zip(strides, stage_with_lip, strict=True) if lip)
        check(ok, 'strides must be 2 where pool_block_output pools', strides)
        check(logit is None or (is_lip and (stem_lip or pools)), 'logit must be None for a network without LIPPool2d', logit)
        check(stem_logit is None or (is_lip and stem_lip), 'stem_logit must be None for a stem without LIPPool2d', stem_logit)
        check(not (pretrained and init_cfg), 'pretrained must be None beside init_cfg', pretrained)
        super().__init__(with_pretrained(pretrained, init_cfg))

        self.frozen_stages, self.norm_eval, self.out_indices = frozen_stages, norm_eval, tuple(out_indices)
        self.fresh = None  # names of the tensors that no checkpoint has filled; None before any
        self.notes_fresh = False  # once a state dict has the note, all have it: averages of weights expect the same keys
        report_later_checkpoints(self)
        if is_lip and logit is None:
            logit = dict(type='BottleneckLogit')
        logit = logit if is_lip else None
        self._make_stem(in_channels, stem_channels or base_channels, deep_stem, conv_cfg, norm_cfg, pool if stem_lip else None, logit, stem_logit)

        inplanes = stem_channels or base_channels
        stride, self.min_size, channels, steps = 4, 4, [], []
        self.layer_names = []
        block_init = dict(type='Constant', val=0, override=dict(name='norm3')) if zero_init_residual else None
        shared = dict(style=style, avg_down=avg_down, conv_cfg=conv_cfg, norm_cfg=norm_cfg, with_cp=with_cp, init_cfg=block_init)
        for i in range(max(out_indices) + 1):
            if stage_with_lip[i] or strides[i] > 1:
                self.min_size = 2 * stride
            stride *= strides[i]
            planes = base_channels * 2**i
            shared.update(dcn=dcn if dcn and stage_with_dcn[i] else None, plugins=self._stage_plugins(plugins, i, num_stages))
            lip = dict(pool=pool, logit=logit, pool_output=pool_block_output) if stage_with_lip[i] else {}
            first, *grid = self._block_dilations(depth, i, dilations[i], contract_dilation, multi_grid if i == num_stages - 1 else None)
            blocks = [Bottleneck(inplanes, planes, strides[i], first, **lip, **shared)]
            inplanes = planes * Bottleneck.expansion
            blocks += [Bottleneck(inplanes, planes, 1, dilation, **shared) for dilation in grid]
            self.layer_names.append(f'layer{i + 1}')
            self.add_module(self.layer_names[-1], Sequential(*blocks))
            channels.append(inplanes)
            steps.append(stride)
        self.out_channels = tuple(channels[i] for i in sorted(out_indices))
        self.out_strides = tuple(steps[i] for i in sorted(out_indices))
        self.feat_dim = channels[-1]
        self._freeze_stages()

    def _check_stages(self, depth, num_stages, out_indices, frozen_stages, multi_grid, entries):
        """Check depth and stages, and that each of ``entries`` has one for each stage."""
        rule = f'depth must be one of {tuple(self.stage_blocks)}: the paper defines LIP for bottleneck blocks'
        if depth in (18, 34):
            rule += f"; its poolings go into others by dict(type='Repooled', backbone='ResNet', depth={depth}, pool=dict(type='LIPPool2d'))"
        check(depth in self.stage_blocks, rule, depth)
        check(1 <= num_stages <= 4, 'num_stages must be in 1..4', num_stages)
        for name, value in entries.items():
            check(len(value) == num_stages, f'{name} must have num_stages = {num_stages} entries', value)
        ok = len(out_indices) > 0 and all(0 <= i < num_stages for i in out_indices)
        check(ok, f'out_indices must name stages in 0..{num_stages - 1}', out_indices)
        check(-1 <= frozen_stages <= num_stages, f'frozen_stages must be in -1..{num_stages}', frozen_stages)
        if multi_grid is not None and max(out_indices) == num_stages - 1:
            num_blocks = self.stage_blocks[depth][num_stages - 1]
            check(len(multi_grid) >= num_blocks, f'multi_grid must have at least {num_blocks} entries', multi_grid)

    def _block_dilations(self, depth, stage, dilation, contract, grid):
        """Dilation of each block of a stage; ``grid`` is the multi-grid of the last one."""
        num_blocks = self.stage_blocks[depth][stage]
        if grid is not None:
            return list(grid[:num_blocks])
        first = dilation // 2 if contract and dilation > 1 else dilation
        return [first] + [dilation] * (num_blocks - 1)

    def _make_stem(self, in_channels, stem_channels, deep_stem, conv_cfg, norm_cfg, pool, logit, stem_logit):
        """Build stem convolutions and pooling; ``pool`` None means max pooling."""
        self.deep_stem = deep_stem
        if deep_stem:
            half = stem_channels // 2
            layers = []
            for cin, cout, stride in ((in_channels, half, 2), (half, half, 1), (half, stem_channels, 1)):
                layers.append(build_conv_layer(conv_cfg, cin, cout, 3, stride=stride, padding=1, bias=False))
                layers.append(build_norm_layer(norm_cfg, cout)[1])
                layers.append(nn.ReLU())
            self.stem = Sequential(*layers)
        else:
            self.conv1 = build_conv_layer(conv_cfg, in_channels, stem_channels, 7, stride=2, padding=3, bias=False)
            self.norm1_name, norm1 = build_norm_layer(norm_cfg, stem_channels, postfix=1)
            self.add_module(self.norm1_name, norm1)
            self.relu = nn.ReLU()
        if pool is None:
            self.stem_pool = nn.MaxPool2d(3, stride=2, padding=1)
            return
        if stem_logit is None and logit is not None:
            stem_logit = dict(logit)
            if class_of(logit, 'LIPResNet', 'logit') is BottleneckLogit:  # paper 3.3: "simply a 3x3 convolution" in the stem
                stem_logit['type'] = 'SimplifiedLogit'
                stem_logit.pop('mid_channels', None)
        top = {} if stem_logit is None else dict(logit=stem_logit)
        place = dict(in_channels=stem_channels, kernel_size=3, stride=2, padding=1)
        self.stem_pool = MODELS.build({**place, **top, **pool})
        check_size(self.stem_pool, pool, place, 'LIPResNet')

    @staticmethod
    def _stage_plugins(plugins, stage, num_stages):
        """Those plugins whose ``stages`` include ``stage``."""
        chosen = []
        for plugin in plugins or ():
            stages, position = plugin.get('stages'), plugin.get('position')
            if stages is not None and len(stages) != num_stages:
                raise ValueError(f'LIPResNet: plugins must give num_stages = {num_stages} entries in stages, but got {stages}')
            if position not in ('after_conv1', 'after_conv2', 'after_conv3'):
                raise ValueError(f"LIPResNet: plugins must have position 'after_conv1', 'after_conv2' or 'after_conv3', but got {position!r}")
            if stages is None or stages[stage]:
                chosen.append(plugin)
        return chosen

    @property
    def norm1(self):
        """Normalisation after the stem's 7x7 convolution."""
        return getattr(self, self.norm1_name)

    def init_weights(self):
        """Initialise; log in one line which tensors a checkpoint filled, see :func:`report_checkpoint`.

        Raises:
            ValueError: If the checkpoint has nothing in common with the network.
        """
        self.fresh, self.notes_fresh = None, False
        with report_checkpoint(self):
            super().init_weights()
        self.train(self.training)

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        """Keep in a training's checkpoint which norms ``norm_eval`` leaves trained, so that a resume goes on with them."""
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.norm_eval and self.notes_fresh:
            marks = {weight: '+' if weight in (self.fresh or ()) else '-' for weight in self._weights_before_norms().values()}
            text = '\n'.join(mark + weight for weight, mark in marks.items())  # of one length, whichever are fresh
            destination[f'{prefix}fresh_tensors'] = torch.tensor(list(text.encode()), dtype=torch.uint8)

    def _weights_before_norms(self):
        """Name of the weight that each batch normalisation follows."""
        norms = [name for name, module in self.named_modules() if isinstance(module, _BatchNorm)]
        return {name: f'{_convolution_before(name)}.weight' for name in norms}

    def _load_from_state_dict(self, state_dict, prefix, *args):
        """Note which tensors start fresh: those that no checkpoint so far has filled, or those that a resumed training notes."""
        noted = state_dict.pop(f'{prefix}fresh_tensors', None)
        report = CheckpointReport.of(self)
        report.take({name.removeprefix(prefix): tensor for name, tensor in state_dict.items() if name.startswith(prefix)})
        self.fresh = report.fresh if self.fresh is None else self.fresh & report.fresh
        if noted is not None and not is_initialising(self):
            lines = bytes(noted.tolist()).decode().split('\n')
            self.fresh = self.fresh | {line.removeprefix('+') for line in lines if not line.startswith('-')}
        self.notes_fresh |= not self.fresh.isdisjoint(self._weights_before_norms().values())
        super()._load_from_state_dict(state_dict, prefix, *args)
        self.train(self.training)

    def _freeze_stages(self):
        if self.frozen_stages < 0:
            return
        names = ['stem'] if self.deep_stem else ['conv1', self.norm1_name]
        names += ['stem_pool', *self.layer_names[: self.frozen_stages]]
        for name in names:
            module = getattr(self, name)
            module.eval()
            module.requires_grad_(False)

    def forward(self, x):
        """Compute the stages' outputs.

        Args:
            x: Images ``(N, in_channels, H, W)``.

        Returns:
            Tuple with one map ``(N, C_i, H_i, W_i)`` for each of ``out_indices``.

        Raises:
            ValueError: If the image is smaller than the network's stride, or so small that a LIP would see a single position.
        """
        refuse_small('LIPResNet', x, self.min_size)
        x = self.stem(x) if self.deep_stem else self.relu(self.norm1(self.conv1(x)))
        x = self.stem_pool(x)
        outs = []
        for i, name in enumerate(self.layer_names):
            x = getattr(self, name)(x)
            if i in self.out_indices:
                outs.append(x)
        return tuple(outs)

    def train(self, mode=True):
        """Set the mode, keeping frozen stages and (``norm_eval``) batch normalisation in eval; returns the network."""
        super().train(mode)
        self._freeze_stages()
        if mode and self.norm_eval:
            for name, weight in self._weights_before_norms().items():
                if weight not in (self.fresh or ()):
                    self.get_submodule(name).eval()
        return self


def _convolution_before(norm_name):
    """Name of the convolution that a normalisation follows: ``layer1.0.bn2`` -> ``layer1.0.conv2``, ``downsample.1`` -> ``downsample.0``."""
    head, _, tail = norm_name.rpartition('.')
    last = f'{int(tail) - 1}' if tail.isdigit() else f'conv{tail[-1]}'
    return f'{head}.{last}' if head else last
