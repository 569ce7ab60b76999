import numpy as np
import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpool_ext.ops import fuse_pyramid, label_pyramid, relabel_pyramid
from mmpool_ext.ops.pyramid import upsample_cells

VOID = 255


@st.composite
def label_maps(draw):
    """Label maps of large blocks with some noise and void, and the strides to look at them with."""
    levels, finest, seed = draw(st.integers(2, 4)), draw(st.sampled_from([1, 2, 3])), draw(st.integers(0, 10**6))
    strides = tuple(finest * 2**level for level in reversed(range(levels)))
    rng = np.random.default_rng(seed)
    rows, columns = (strides[0] * draw(st.integers(1, 2)) for _ in range(2))
    block = draw(st.sampled_from(strides))
    label = rng.integers(0, 3, (rows // block, columns // block)).repeat(block, 0).repeat(block, 1)
    for value, share in ((1, draw(st.sampled_from([0, 0.01]))), (VOID, draw(st.sampled_from([0, 0.05, 0.6, 1])))):
        label[rng.random(label.shape) < share] = value
    return label, strides, rng


def unity_logits_for(unity, rng):
    return [torch.from_numpy(rng.normal(0, 2, truth.shape)) for truth in unity]


@given(label_maps(), st.sampled_from(['agree', 'strict']), st.sampled_from([torch.uint8, torch.int64]))
@settings(max_examples=60, deadline=None)
def test_ground_truth_equals_the_oracle(drawn, void_rule, dtype):
    label, strides, _ = drawn
    semantic, unity = label_pyramid(torch.from_numpy(label).to(dtype)[None], strides, void_rule=void_rule)
    expected_semantic, expected_unity = reference.pyramid_labels(label, strides, void_rule=void_rule)
    assert len(unity) == len(strides) - 1
    for got, expected in zip(semantic, expected_semantic, strict=True):
        assert got.dtype == dtype
        np.testing.assert_array_equal(got[0], expected)
    for got, expected in zip(unity, expected_unity, strict=True):
        assert got.dtype == torch.int8
        np.testing.assert_array_equal(got[0], np.where(expected == VOID, -1, expected))


@given(label_maps(), st.sampled_from(['agree', 'strict']), st.sampled_from([0, 1, 2, 200]), st.sampled_from(['raw', 'gt', 'tp']))
@settings(max_examples=60, deadline=None)
def test_any_label_may_mark_void(drawn, void_rule, ignore_index, mode):
    """With void at 0 or 1 the maps are those of void at 255: cells that are mixed (0) or unit (1) are not taken for void."""
    label, strides, rng = drawn
    label = torch.from_numpy(label)[None]
    other = torch.where(label == VOID, ignore_index, torch.where(label == ignore_index, VOID, label))
    semantic, unity = label_pyramid(label, strides, void_rule=void_rule)
    logits = unity_logits_for(unity, rng)
    renamed_semantic, renamed_unity = label_pyramid(other, strides, ignore_index, void_rule)
    expected = relabel_pyramid(semantic, unity, logits, mode)
    got = relabel_pyramid(renamed_semantic, renamed_unity, logits, mode, ignore_index=ignore_index)
    assert all(torch.equal(one, two) for one, two in zip(got[1], expected[1], strict=True))
    for one, two in zip(got[0], expected[0], strict=True):
        assert torch.equal(one, torch.where(two == VOID, ignore_index, torch.where(two == ignore_index, VOID, two)))


@given(label_maps(), st.sampled_from(['agree', 'strict']))
@settings(max_examples=40, deadline=None)
def test_descendants_of_a_unit_cell_are_unit_with_its_label_or_void(drawn, void_rule):
    label, strides, _ = drawn
    semantic, unity = label_pyramid(torch.from_numpy(label)[None], strides, void_rule=void_rule)
    for level, truth in enumerate(unity):
        for finer in range(level + 1, len(strides)):
            parent_is_unit = upsample_cells(truth == 1, 2 ** (finer - level))
            parent_label = upsample_cells(semantic[level], 2 ** (finer - level))
            assert ((semantic[finer] == parent_label) | (semantic[finer] == VOID))[parent_is_unit].all()
            if finer < len(unity):
                assert ((unity[finer] == 1) | (unity[finer] == -1))[parent_is_unit].all()


@given(label_maps(), st.sampled_from(['raw', 'gt', 'tp']))
@settings(max_examples=60, deadline=None)
def test_relabelling_equals_the_oracle(drawn, mode):
    label, strides, rng = drawn
    semantic, unity = label_pyramid(torch.from_numpy(label)[None], strides)
    before = [level.clone() for level in [*semantic, *unity]]
    logits = unity_logits_for(unity, rng)
    got = relabel_pyramid(semantic, unity, logits, mode, threshold=0.6)
    probability = [logit[0].sigmoid().numpy() for logit in logits]
    expected = reference.pyramid_relabel(
        [s[0].numpy() for s in semantic], [np.where(u[0] == -1, VOID, u[0].int().numpy()) for u in unity], probability, mode, 0.6
    )
    for level, expected_level in zip(got[0], expected[0], strict=True):
        np.testing.assert_array_equal(level[0], expected_level)
    for level, expected_level in zip(got[1], expected[1], strict=True):
        np.testing.assert_array_equal(level[0], np.where(expected_level == VOID, -1, expected_level))
    assert all(torch.equal(one, other) for one, other in zip(before, [*semantic, *unity], strict=True)), 'the input was edited'


def test_false_positives_and_false_negatives_stay_to_be_learnt():
    label = torch.zeros(1, 8, 16, dtype=torch.long)
    label[0, 0, 0] = 1  # the left cell is mixed, the right one is unit
    semantic, unity = label_pyramid(label, (8, 4))
    sure, unsure = torch.tensor([[[5.0, 5.0]]]), torch.tensor([[[-5.0, -5.0]]])
    assert relabel_pyramid(semantic, unity, [sure])[0][1].tolist() == [[[0, 0, VOID, VOID], [0, 0, VOID, VOID]]]
    assert torch.equal(relabel_pyramid(semantic, unity, [unsure])[0][1], semantic[1])


@given(label_maps())
@settings(max_examples=60, deadline=None)
def test_fuser_equals_the_oracle_and_takes_one_level_per_pixel(drawn):
    label, strides, rng = drawn
    semantic, unity = label_pyramid(torch.from_numpy(label)[None], strides)
    logits = unity_logits_for(unity, rng)
    maps = [torch.from_numpy(rng.normal(size=(1, 2, *level.shape[1:]))) for level in semantic]
    fused, level = fuse_pyramid(maps, logits, 0.4)
    expected, chosen = reference.pyramid_fuse([m[0].numpy() for m in maps], [logit[0].sigmoid().numpy() for logit in logits], 0.4)
    np.testing.assert_array_equal(fused[0], expected)
    np.testing.assert_array_equal(level[0], chosen)
    upsampled = [upsample_cells(m, fused.shape[-1] // m.shape[-1]) for m in maps]
    taken = torch.stack([(up == fused).all(1) for up in upsampled])
    assert (taken.sum(0) == 1).all(), 'random maps differ everywhere, so that one and only one level explains a pixel'
    assert torch.equal(taken.int().argmax(0), level)


@given(label_maps())
@settings(max_examples=40, deadline=None)
def test_fusing_the_ground_truth_gives_the_label_map_back(drawn):
    label, strides, _ = drawn
    label[label == VOID] = 3
    semantic, unity = label_pyramid(torch.from_numpy(label)[None], strides)
    fused, _ = fuse_pyramid([level[:, None] for level in semantic], [(truth == 1) * 20.0 - 10 for truth in unity])
    finest = strides[-1]
    cells = torch.from_numpy(label).unfold(0, finest, finest).unfold(1, finest, finest).flatten(2)
    pure = (cells == cells[..., :1]).all(-1)
    assert torch.equal(fused[0, 0][pure], cells[..., 0][pure])


@pytest.mark.parametrize(('logit', 'level'), [(-1e-3, 3), (0.0, 0), (100.0, 0), (-100.0, 3)])
def test_one_side_of_the_threshold_takes_one_level(logit, level):
    semantic = [torch.full((1, 1, 2**size, 2**size), float(size)) for size in range(4)]
    fused, chosen = fuse_pyramid(semantic, [torch.full((1, 2**size, 2**size), logit) for size in range(3)])
    assert (chosen == level).all()
    assert (fused == level).all()


def test_fused_logits_pass_gradients_to_the_chosen_level_alone():
    coarse, fine = torch.randn(1, 2, 1, 1, requires_grad=True), torch.randn(1, 2, 2, 2, requires_grad=True)
    fused, _ = fuse_pyramid([coarse, fine], [torch.ones(1, 1, 1)])
    grad_output = torch.randn_like(fused)
    fused.backward(grad_output)
    torch.testing.assert_close(coarse.grad, grad_output.sum((2, 3), keepdim=True))
    assert not fine.grad.any()


def test_void_everywhere_and_empty_batch():
    semantic, unity = label_pyramid(torch.full((2, 8, 8), VOID), (8, 4))
    assert all((level == VOID).all() for level in semantic)
    assert all((level == -1).all() for level in unity)
    semantic, unity = label_pyramid(torch.zeros(0, 8, 8, dtype=torch.long), (8, 4))
    assert [level.shape for level in [*semantic, *unity]] == [(0, 1, 1), (0, 2, 2), (0, 1, 1)]


def test_non_contiguous_labels():
    label = torch.randint(0, 2, (2, 16, 8)).repeat_interleave(2, 2)
    straight = label_pyramid(label.transpose(1, 2).contiguous(), (8, 4, 2))
    bent = label_pyramid(label.transpose(1, 2), (8, 4, 2))
    assert all(torch.equal(one, other) for one, other in zip(straight[0] + straight[1], bent[0] + bent[1], strict=True))


@pytest.mark.parametrize('strides', [(32, 16, 4), (4, 8), (8,), (), (1, 0)])
def test_strides_must_halve(strides):
    with pytest.raises(ValueError, match=r'label_pyramid: strides must be two or more, each half of the one before.*but got'):
        label_pyramid(torch.zeros(1, 64, 64, dtype=torch.long), strides)


@pytest.mark.parametrize('size', [(16, 16), (32, 40), (0, 32)])
def test_coarsest_stride_must_fit_the_size(size):
    with pytest.raises(ValueError, match=f'must be multiples of the coarsest stride 32, but got {size[0]} x {size[1]}'):
        label_pyramid(torch.zeros(1, *size, dtype=torch.long))


def test_bad_labels_and_rules():
    label = torch.zeros(1, 8, 8, dtype=torch.long)
    with pytest.raises(TypeError, match=r'label must be integers of shape \(N, H, W\), but got torch.float32'):
        label_pyramid(label.float(), (8, 4))
    with pytest.raises(TypeError, match=r'but got torch.int64 of shape \(8, 8\)'):
        label_pyramid(label[0], (8, 4))
    with pytest.raises(ValueError, match=r"void_rule must be one of .* but got 'majority'"):
        label_pyramid(label, (8, 4), void_rule='majority')
    semantic, unity = label_pyramid(label, (8, 4))
    with pytest.raises(ValueError, match=r"mode must be one of .* but got 'fp'"):
        relabel_pyramid(semantic, unity, mode='fp')
    with pytest.raises(ValueError, match=r'unity_logits must have the shapes of unity, \[\(1, 1, 1\)\], but got \[\]'):
        relabel_pyramid(semantic, unity)


@pytest.mark.parametrize('threshold', [0, 1, -0.5, 2, float('nan')])
def test_threshold_must_be_a_probability(threshold):
    with pytest.raises(ValueError, match='relabel_pyramid: threshold must lie strictly between 0 and 1'):
        relabel_pyramid([torch.zeros(1, 1, 1)] * 2, [torch.zeros(1, 1, 1)], [torch.zeros(1, 1, 1)], threshold=threshold)
    with pytest.raises(ValueError, match='fuse_pyramid: threshold must lie strictly between 0 and 1'):
        fuse_pyramid([torch.zeros(1, 1, 1, 1)] * 2, [torch.zeros(1, 1, 1)], threshold)


def test_fuser_refuses_levels_that_do_not_double():
    with pytest.raises(ValueError, match=r'twice the size.*but got \[\(1, 1\), \(3, 3\)\] and \[\(1, 1\)\]'):
        fuse_pyramid([torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 3, 3)], [torch.zeros(1, 1, 1)])


def test_labels_may_be_negative():
    """Void agreed with no label below 0: a cell of void and -3 was mixed."""
    label = torch.tensor([[[-3, -1], [-3, -3]]])
    semantic, unity = label_pyramid(label, strides=(2, 1), ignore_index=-1)
    assert (semantic[0].item(), unity[0].item()) == (-3, 1)
    assert label_pyramid(torch.tensor([[[-3, -2], [-3, -3]]]), strides=(2, 1), ignore_index=-1)[1][0].item() == 0
