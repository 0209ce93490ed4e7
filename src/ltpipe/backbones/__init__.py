"""Backbones: each file has a Config block and this function.

    build(config, branches, narrow, private) -> nn.Module: images B x 3 x H x W -> features B x D, or B x branches x D

The module's int attribute `features` is D. narrow: share of their channels that the last two stages keep, if there are
several branches. private: what each branch has for itself (see ltpipe.interface.method.Needs).

`schedule.layer_decay` needs one more method of the module, and is refused without it:

        layers() -> list of lists of modules: all parameters, layer by layer, from the image on
"""
