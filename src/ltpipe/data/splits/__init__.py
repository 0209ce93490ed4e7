"""How a manifest is drawn from an index: one file a kind, each with a Config block and

draw(index, config)     -> the manifest without its columns id and row (ltpipe.data.manifest)
"""
