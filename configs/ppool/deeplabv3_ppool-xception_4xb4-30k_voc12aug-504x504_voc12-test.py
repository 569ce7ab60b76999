_base_ = './deeplabv3_ppool-xception_4xb4-30k_voc12aug-504x504.py'
custom_imports = dict(imports=['mmpool_ext'], allow_failed_imports=False)
test_pipeline = [dict(type='LoadImageFromFile'), dict(type='PackSegInputs')]
test_dataloader = dict(dataset=dict(ann_file='ImageSets/Segmentation/test.txt', pipeline=test_pipeline))
# Table 2: the labels are on VOC's server, which takes these PNGs
test_evaluator = dict(format_only=True, output_dir='work_dirs/voc12-test/deeplabv3_ppool-xception')
