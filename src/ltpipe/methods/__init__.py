"""Training methods: one file for each, with the paper in its docstring, a Config block and

Method(config, problem, base, started)     -> the hooks that it overrides (see ltpipe.interface.method)
"""
