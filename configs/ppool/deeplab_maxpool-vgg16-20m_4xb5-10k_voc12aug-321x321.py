_base_ = './deeplab_ppool-vgg16-20m_4xb5-10k_voc12aug-321x321.py'
custom_imports = dict(imports=['mmpool_ext'], allow_failed_imports=False)
model = dict(backbone=dict(pool=dict(_delete_=True, type='MaximumPool2d')))  # Tables 2, 3 and 5, without P-pooling
