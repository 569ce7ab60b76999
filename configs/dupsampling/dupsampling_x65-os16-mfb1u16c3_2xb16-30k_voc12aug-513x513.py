# Table 5, second round: SBD, from the first round's network and a learning rate of 0.001. DeepLab's 10,582 images: VOC train, SBD without VOC val.
_base_ = './dupsampling_x65-os16-mfb1u16c3_2xb16-30k_voc12-513x513.py'
model = dict(decode_head=dict(upsample=dict(weight='work_dirs/dupsampling/coco-voc21_r16_c128.pth')))  # one W for the three rounds
load_from = 'work_dirs/dupsampling_x65-os16-mfb1u16c3_2xb16-500k_coco-voc21-513x513/iter_500000.pth'
train_dataloader = dict(dataset=dict(data_prefix=dict(seg_map_path='SegmentationClassAug'), ann_file='ImageSets/Segmentation/trainaug.txt'))
optim_wrapper = dict(optimizer=dict(lr=0.001))
