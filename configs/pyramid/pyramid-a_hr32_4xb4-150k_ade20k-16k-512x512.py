_base_ = './pyramid-h_hr32_4xb4-150k_ade20k-16k-512x512.py'
model = dict(decode_head=dict(context=None, supervision='finest'))
