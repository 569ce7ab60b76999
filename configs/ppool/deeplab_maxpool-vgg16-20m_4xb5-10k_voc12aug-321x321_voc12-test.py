_base_ = './deeplab_maxpool-vgg16-20m_4xb5-10k_voc12aug-321x321.py'
custom_imports = dict(imports=['mmpool_ext'], allow_failed_imports=False)
test_pipeline = [dict(type='LoadImageFromFile'), dict(type='PackSegInputs')]
test_dataloader = dict(dataset=dict(ann_file='ImageSets/Segmentation/test.txt', pipeline=test_pipeline))
# Table 2: the labels are on VOC's server, which takes these PNGs
test_evaluator = dict(format_only=True, output_dir='work_dirs/voc12-test/deeplab_maxpool-vgg16-20m')
