"""Features: what a network says of images, one layer's output."""
