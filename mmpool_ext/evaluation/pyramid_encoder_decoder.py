"""A segmentor that adds the predicted pyramid to its data samples, for :class:`PyramidLevelMetric`."""

import torch
import torch.nn.functional as F
from mmengine.structures import PixelData
from mmseg.models import EncoderDecoder
from mmseg.structures import SegDataSample


class PyramidEncoderDecoder(EncoderDecoder):
    """mmseg's ``EncoderDecoder`` that also returns the predictions of each level of a ``PyramidRepresentationHead``.

    Every data sample gains ``pyramid_sem_seg`` ``(L, H, W)``, the label map that each level alone would give, and ``pyramid_level``
    ``(1, H, W)``, the level that the fuser chose for a pixel, 0 for the coarsest. Weights are those of ``EncoderDecoder``. Single images
    at one scale: the additions are not merged over test-time augmentation.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        mode = self.test_cfg.get('mode', 'whole')
        if mode != 'whole':
            raise ValueError(f"PyramidEncoderDecoder: test_cfg.mode must be 'whole', but got {mode!r}")
        if getattr(self.decode_head, 'supervision', 'finest') == 'finest':
            raise ValueError(
                f'PyramidEncoderDecoder: decode_head must be a PyramidRepresentationHead with a classifier at every level, '
                f'but got {type(self.decode_head).__name__} with the finest alone'
            )

    def predict(self, inputs, data_samples=None):
        """Predict a batch ``(N, 3, H, W)`` and add the levels to its data samples."""
        if data_samples is None:
            shape = tuple(inputs.shape[2:])
            data_samples = [SegDataSample(metainfo=dict(ori_shape=shape, img_shape=shape)) for _ in inputs]
        head, metas = self.decode_head, [sample.metainfo for sample in data_samples]

        def label_maps(logits):
            samples = [SegDataSample(metainfo=meta) for meta in metas]
            return [sample.pred_sem_seg.data for sample in self.postprocess_result(head.predict_by_feat(logits, metas), samples)]

        pyramid = head.predict_pyramid(self.extract_feat(inputs))
        fused, level = head.fuse(pyramid)
        levels = [label_maps(logits) for logits in head.spread(pyramid)]
        chosen = label_maps(F.one_hot(level, len(levels)).movedim(-1, 1).to(fused))
        for index, sample in enumerate(data_samples):
            sample.set_data(
                dict(
                    pyramid_sem_seg=PixelData(data=torch.cat([maps[index] for maps in levels])),
                    pyramid_level=PixelData(data=chosen[index]),
                )
            )
        return self.postprocess_result(head.predict_by_feat(fused, metas), data_samples)
