"""Networks: one file a backbone, the heads, and the network that joins them."""
