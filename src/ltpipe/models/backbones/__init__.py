"""One file a backbone: a Config block and build(config, branches, narrow) -> nn.Module with an int `features`."""
