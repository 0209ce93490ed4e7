"""Sources of images. Each is one module with

    Config                                  its block of options
    NOTICE                                  the licence, kept beside the data
    build_index(config, raw)                -> the index (columns: ltpipe.data.fetch.COLUMNS); downloads go into `raw`
    read_images(config, raw, files, size)   -> the images of the index's `file` values, uint8, N x size x size x 3

A source whose `file` values are not the paths of picture files, but that has whole pictures, also defines
`find_pictures(config, raw, files)`, which returns them as ltpipe.data.decode.Picture.
A source that can read a folder of the user also defines DATASET (data that a program may not download) or VARIABLE
(the environment variable that names the folder). Because such a folder can change at any time, every `dvc repro`
builds its index again.
"""
