"""The picture of W's leading columns."""

import numpy as np
import pytest
import torch

from mmpool_ext.visualization.dupsampling_components import draw_components


def test_red_where_a_component_raises_the_class():
    weight = torch.zeros(2 * 4, 3)
    weight[0, 0], weight[7, 0] = 0.5, -1.0  # component 0: class 0 at the top left up by half, class 1 at the bottom right down
    picture = np.array(draw_components(weight, ('a', 'b'), 2, num_components=2, tile=10))
    assert picture.shape == (14 + 2 * 12, 2 * 12, 3)
    first, second = picture[15:25, 1:11], picture[15:25, 13:23]
    assert first[0, 0].tolist() == [255, 128, 128]
    assert first[9, 9].tolist() == [255, 255, 255]
    assert second[9, 9].tolist() == [0, 0, 255]
    assert (picture[27:37, 1:11] == 255).all()


def test_rows_must_fit():
    with pytest.raises(ValueError, match=r'draw_components: weight must have 3 \* 2 \*\* 2 rows, but got 8'):
        draw_components(torch.zeros(8, 3), 'abc', 2)
