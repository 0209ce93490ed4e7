"""Features to cluster images by: one file for each way, with a Config block and

extract(config, index, rows, given)     -> features of the index's `rows` in their order, N x D

given (ltpipe.extraction.passage.Given) has the images, a folder for caches, and the checkpoint of `start_from`. A
module that uses such a checkpoint states TAKES_CHECKPOINT = True.
"""
