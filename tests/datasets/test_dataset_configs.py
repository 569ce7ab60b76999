"""Configs are read whether their types are names, names with a scope, or classes."""

import pytest
from mmengine.registry import DefaultScope

from mmpool_ext.datasets.dataset_configs import leaves, loads_labels, step_class, type_name


def test_leaves_of_nested_wrappers():
    first, second = dict(type='A', ann_file='a'), dict(type='A', ann_file='b')
    nested = dict(type='RepeatDataset', dataset=dict(type='ConcatDataset', datasets=[first, dict(type='ClassBalancedDataset', dataset=second)]))
    assert list(leaves(nested)) == [first, second]
    assert list(leaves(first)) == [first]


@pytest.mark.parametrize('scope', ['mmseg', 'mmdet'])
def test_label_steps(scope):
    transforms = pytest.importorskip(f'{scope}.datasets.transforms')
    cls = transforms.LoadAnnotations
    with DefaultScope.overwrite_default_scope(scope):
        for kind in ('LoadAnnotations', f'{scope}.LoadAnnotations', cls):
            assert step_class(dict(type=kind)) is cls
            assert type_name(dict(type=kind)) == 'LoadAnnotations'
            assert loads_labels(dict(type=kind))
        assert loads_labels(dict(type=type('Own', (cls,), {})))
        assert not loads_labels(dict(type='LoadImageFromFile'))
        assert not loads_labels(dict(type='NotRegistered'))
