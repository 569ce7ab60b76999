"""What the DUpsampling demo computes by itself."""

import numpy as np
import pytest

pytest.importorskip('matplotlib')
demo_dupsampling = pytest.importorskip('demo_dupsampling')


def test_bilinear_confusion_restores_what_is_coarse_and_loses_what_is_thin():
    coarse = np.zeros((32, 32), dtype=np.uint8)
    coarse[:, 16:] = 1
    assert demo_dupsampling.bilinear_confusion([coarse], 8).diagonal().sum() == 32 * 32
    thin = np.zeros((32, 32), dtype=np.uint8)
    thin[:, 10] = 2
    thin[0, 0] = 255
    confusion = demo_dupsampling.bilinear_confusion([thin], 8)
    assert confusion.sum() == 32 * 32 - 1
    assert confusion[2, 0] == 32  # every pixel of the line turns to background
