"""`python -m ltpipe.training`: the older spelling of `ltpipe train`."""

from ltpipe.train import command

command(prog_name="python -m ltpipe.training")
