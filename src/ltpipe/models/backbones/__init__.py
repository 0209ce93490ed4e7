"""One file a backbone: a Config block and build(config, branches) -> nn.Module with an int attribute `features`."""
