"""How a manifest is drawn from an index: one file a kind, each with a Config block and

draw(index, config, images)     -> the manifest without its columns id and row (ltpipe.data.manifest)

images (ltpipe.data.fetch.Images) is for a kind that looks at them.
"""
