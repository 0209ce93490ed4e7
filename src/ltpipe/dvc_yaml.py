"""`python -m ltpipe.dvc_yaml`: the older spelling of `ltpipe generate`, for dvc.yaml alone."""

from ltpipe.pages.dvc_yaml import command

if __name__ == "__main__":
    command(prog_name="python -m ltpipe.dvc_yaml")
