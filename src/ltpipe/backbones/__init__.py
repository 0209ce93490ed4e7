"""Backbones: each file has a Config block and this function.

    build(config, branches, narrow, private, image) -> nn.Module: images B x 3 x H x W -> B x D, or B x branches x D

The module's int attribute `features` is D. narrow: share of their channels that the last two stages keep, if there are
several branches. private: what each branch has for itself (see ltpipe.interface.method.Needs). image: H = W, for
networks that take one size only; the others ignore it.

A backbone whose networks cannot be cut into a trunk and branches states WHOLE = True; LIBRARIES are the packages whose
version goes into a checkpoint's provenance. One that has weights to start from has two functions more, and one that
knows its images a third:

* find_weights(config): their file and facts for the provenance, or None: random weights
* load_weights(config, path, branches, image): tensors by the names of build's network
* inputs(config): image, mean and std, where the block `model` does not state them

`schedule.layer_decay` needs one more method of the module, and is refused without it:

        layers() -> list of lists of modules: all parameters, layer by layer, from the image on
"""
