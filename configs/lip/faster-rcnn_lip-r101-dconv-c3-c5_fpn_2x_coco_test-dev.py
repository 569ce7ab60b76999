_base_ = './faster-rcnn_lip-r101-dconv-c3-c5_fpn_2x_coco.py'
custom_imports = dict(imports=['mmpool_ext'], allow_failed_imports=False)
# Table 6: the labels are on COCO's server, which takes the .bbox.json that this writes
test_dataloader = dict(dataset=dict(ann_file='annotations/image_info_test-dev2017.json', data_prefix=dict(img='test2017/')))
test_evaluator = dict(
    ann_file='data/coco/annotations/image_info_test-dev2017.json',
    format_only=True,
    outfile_prefix='work_dirs/coco_test-dev/faster-rcnn_lip-r101-dconv-c3-c5_fpn_2x_coco',
)
