"""Kinds of split: one file for each, with

Config                          its block of options
draw_manifest(index, config)    -> the manifest without the columns id and row (see ltpipe.storage.manifest)

A kind that needs attributes reads the index's column `attribute`; the stage `cluster` fills it where nobody labelled
them.
"""
