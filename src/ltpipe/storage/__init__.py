"""What is on disk: tables, images, weights, and which code made them."""
