"""What images are clustered by: one file a way, each with a Config block and

extract(config, index, rows, images, cache)     -> N x D: features of the index's `rows`, in their order;
                                                   or N, int64: clusters that are known, 0..count-1 in their class

images (ltpipe.data.fetch.Images) reads them; cache is the folder for what is expensive to compute, or None. Modules are
found by name (split.options.clusters.features), so that nothing of a network is loaded where none is asked for.
"""
