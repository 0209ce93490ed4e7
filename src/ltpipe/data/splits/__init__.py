"""Split kinds, one module each. A module defines:

    Config                          the block of its options
    draw_manifest(index, config)    -> the manifest without the columns id and row (see ltpipe.storage.manifest)

A kind that needs attributes reads the index's column `attribute`. If nobody labelled the attributes, the stage
`cluster` fills this column.
"""
