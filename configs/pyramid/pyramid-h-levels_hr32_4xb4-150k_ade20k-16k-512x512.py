_base_ = './pyramid-h_hr32_4xb4-150k_ade20k-16k-512x512.py'  # for tools/test.py with H's checkpoint, without --tta
model = dict(type='PyramidEncoderDecoder')
test_evaluator = [dict(type='BoundaryIoUMetric'), dict(type='PyramidLevelMetric')]
