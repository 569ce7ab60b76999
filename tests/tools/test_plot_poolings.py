"""The functions behind Figs. 2 and 3 are the poolings that they are called."""

import sys

import plot_poolings
import pytest
import torch
from plot_poolings import MAPS, SURFACES, points


def test_a_p_pooling_lies_between_average_and_max_and_lp_above_it():
    """P-pooling paper, Sec. 3.6: 'its outputs can be greater than any of the input elements'."""
    pairs = torch.rand(200, 1, 1, 2)
    values = {name: pool(pairs, (1, 2)) for name, pool in SURFACES.items()}
    for name, value in values.items():
        if 'Lp' in name:
            assert (value >= values['max'] - 1e-6).all()
        else:
            assert (values['average'] - 1e-6 <= value).all()
            assert (value <= values['max'] + 1e-6).all()


def test_symmetric_dpp_is_the_average_of_two_pixels():
    pairs = torch.rand(50, 1, 1, 2)
    torch.testing.assert_close(plot_poolings.detail_preserving(pairs, (1, 2)), MAPS['average'](pairs, (1, 2)))


def test_p_pooling_keeps_both_points():
    """P-pooling paper, Fig. 2: with alpha = 2 the white and the grey point still show; max pooling loses the grey one."""
    image = points()
    plain = points()
    plain[..., 6, 6] = 0.8
    seen = {name: (pool(image, 2) - pool(plain, 2)).abs().max() for name, pool in MAPS.items()}
    assert seen['max'] == 0
    assert seen['P-pooling (alpha = 2)'] > 0.02


def test_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['plot_poolings', str(tmp_path / 'x.png')])
    plot_poolings.main()
    assert [path.name for path in tmp_path.iterdir()] == ['x.png']
    with pytest.raises(SystemExit):
        plot_poolings.main()
    assert 'must not exist; pass --overwrite' in capsys.readouterr().err
    monkeypatch.setattr(sys, 'argv', ['plot_poolings', str(tmp_path / 'new' / 'x')])
    plot_poolings.main()
    assert [path.name for path in (tmp_path / 'new').iterdir()] == ['x']
