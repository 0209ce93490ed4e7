"""How tables, images and weights are stored on disk, and which code produced them."""
