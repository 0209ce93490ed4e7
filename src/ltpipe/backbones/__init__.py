"""Backbones: each file has a Config block and this function.

build(config, branches, narrow)     -> nn.Module: images B x 3 x H x W -> features B x D, or B x branches x D

The module's int attribute `features` is D. narrow: share of the channels that the private stages of each branch keep.
"""
