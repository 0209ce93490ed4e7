"""The menu of features by which images are clustered. Each module has a Config block and the function

    extract(config, index, rows, given)     -> features of the index's `rows` in their order, N x D

given (ltpipe.extraction.passage.Given) has the images, a folder for caches, and the checkpoint of `start_from`. A
module that uses such a checkpoint states TAKES_CHECKPOINT = True.
"""
