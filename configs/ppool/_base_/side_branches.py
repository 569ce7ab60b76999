# Side branches learn 3 times as fast (Sec. 4.1). The authors' trainer has no weight decay on their PReLU and last bias, nor have DPP's authors on
# their two parameters. The longest key that is part of a parameter's name counts.
side_branches = {
    'side_branch': dict(lr_mult=3),
    'side_branch.1.weight': dict(lr_mult=3, decay_mult=0),
    'side_branch.2.bias': dict(lr_mult=3, decay_mult=0),
    'log_alpha': dict(decay_mult=0),
    'log_lambda': dict(decay_mult=0),
}
