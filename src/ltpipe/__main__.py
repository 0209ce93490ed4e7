"""`python -m ltpipe VERB` is the command `ltpipe VERB`."""

from ltpipe.commands import main

main(prog_name="ltpipe")
