"""Training methods. Each file is one method; the file's name is the method's name. Each module has

Config                                     the options, as a parameter block
Method(config, problem, base, started)     the hooks that the method overrides (see ltpipe.interface.method)

and a docstring in parts, from which `ltpipe generate` writes the method's card in docs/methods.md:

    first paragraph                       the name, the paper and, in one sentence, the idea
    next paragraphs                       what the method does, in two or three sentences
    Formula:                              the mathematics, indented
    Use:                                  example runs, each NAME: {OPTION: VALUE}; NAME: {} for the defaults
    Suggested values:                     for each benchmark, with the source; or "the defaults"
    Where the authors' code differs:      from this module
    Cost:                                 what the timing of a step does not show (may be left out); the timing
                                          itself is of benchmarks/method_cost.py, else the card says "Not measured"
    Attribution:                          paper, authors' repository, its licence

Letters:
* B: images in a batch. N: training images. C: classes. D: length of an image's features.
* E: experts (branches of the network). K: parallel parts of one method: environments of IFL, parts of the features in
  TDE.
* x: image. y: label, 0..C-1. z: features, D. W: weights of the classifier, C x D. s: logits, C.
* b: index of an image in the batch. c, j: indices of classes. e: index of an expert. k: index of a part.
* n_c: training images of class c. pi_c = n_c / N: class prior of the training stream. rho: largest n_c / smallest n_c.
* CE(s, y) = -log softmax(s)_y: cross-entropy in nats. onehot(y): 1 at y and 0 elsewhere, C.
"""
