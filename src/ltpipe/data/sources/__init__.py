"""Where images come from: one file a source, each with

Config      its block of options
NOTICE      the licence, kept beside the data
fetch(config, raw)               -> index (columns: ltpipe.data.fetch.COLUMNS); downloads go into the folder `raw`
read(config, raw, files, size)   -> the images of the index's `file` values, uint8, N x size x size x 3
"""
