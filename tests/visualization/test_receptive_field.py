"""Class activation maps and receptive fields of networks whose answer is known."""

import pytest
import torch
from torch import nn

from mmpool_ext.visualization.receptive_field import class_activation, draw_receptive_fields, receptive_field

CLASSES = torch.tensor([[1.0, -2.0, 0.5], [0.25, 3.0, -1.0]])  # linear layer from the three colours to two classes


class AverageNet(nn.Module):
    """Averages 4 x 4 pixels, pools globally and classifies."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.AvgPool2d(4))
        self.backbone.register_forward_hook(lambda module, args, output: (output,))
        self.head = nn.Linear(3, 2, bias=False)
        self.head.weight.data.copy_(CLASSES)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return self.head(self.backbone(inputs)[0].mean((2, 3)))


@pytest.mark.parametrize('class_index', [0, 1])
def test_map_is_the_classifiers_weights_over_the_features(class_index):
    inputs = torch.rand(1, 3, 16, 24).requires_grad_()
    model = AverageNet()
    activation, index = class_activation(model, inputs, class_index=class_index)
    expected = torch.einsum('k,khw->hw', CLASSES[class_index], nn.functional.avg_pool2d(inputs, 4)[0])
    probability = model(inputs).softmax(1)[0, class_index]
    assert index == class_index
    torch.testing.assert_close(activation, probability * expected)
    assert len(model.backbone._forward_hooks) == 1


def test_class_of_the_greatest_probability_and_a_class_that_is_not_there():
    inputs = torch.rand(1, 3, 8, 8).requires_grad_()
    model = AverageNet()
    assert class_activation(model, inputs)[1] == int(model(inputs).argmax())
    with pytest.raises(ValueError, match=r'class_activation: class_index must be in 0..1, but got 2'):
        class_activation(model, inputs, class_index=2)


@pytest.mark.parametrize(('location', 'cell'), [((0, 0), (0, 0)), ((11, 5), (1, 3)), ((23, 15), (3, 5))])
def test_field_is_the_window_of_the_nearest_cell(location, cell):
    inputs = torch.rand(1, 3, 16, 24).requires_grad_()
    activation, _ = class_activation(AverageNet(), inputs, class_index=0)
    field = receptive_field(activation, inputs, location)
    expected = torch.zeros(16, 24)
    expected[4 * cell[0] : 4 * cell[0] + 4, 4 * cell[1] : 4 * cell[1] + 4] = 1
    torch.testing.assert_close(field / field.max(), expected)


def test_location_outside():
    inputs = torch.rand(1, 3, 16, 24).requires_grad_()
    activation, _ = class_activation(AverageNet(), inputs)
    with pytest.raises(ValueError, match=r'receptive_field: location must lie in the image of 24 x 16 pixels, but got \(24, 0\)'):
        receptive_field(activation, inputs, (24, 0))


def test_draws_a_column_a_network_and_a_row_a_location(tmp_path):
    maps, fields = dict(a=torch.rand(2, 3), b=torch.rand(4, 6)), dict(a=[torch.rand(16, 24)] * 2, b=[torch.rand(16, 24)] * 2)
    figure = draw_receptive_fields(torch.zeros(16, 24, 3).byte(), [(0, 0), (5, 9)], maps, fields, 'disc', dict(a=8, b=4))
    figure.savefig(tmp_path / 'x.png')
    assert len(figure.axes) == 3 * 3
    assert [axes.get_title() for axes in figure.axes[:3]] == ['image', 'a', 'b']
    shown = torch.as_tensor(figure.axes[1].images[1].get_array().data)
    assert shown.shape == (16, 24)
    torch.testing.assert_close(shown[::8, ::8], maps['a'])  # cells lie at multiples of the stride
    torch.testing.assert_close(shown[8:, 16:], maps['a'][1, 2].expand(8, 8))  # and the last goes on to the border
