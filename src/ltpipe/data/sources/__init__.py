"""Sources of images: one file for each, with

Config                                  its block of options
NOTICE                                  the licence, kept beside the data
build_index(config, raw)                -> the index (columns: ltpipe.data.fetch.COLUMNS); downloads go into `raw`
read_images(config, raw, files, size)   -> the images of the index's `file` values, uint8, N x size x size x 3

A source that can read a folder of the user also states DATASET (data that may not be downloaded by a program) or
VARIABLE (the environment variable that names the folder); its index is then built anew on every `dvc repro`.
"""
