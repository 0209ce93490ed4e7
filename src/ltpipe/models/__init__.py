"""The network: its parameter block, its input images, the network that is trained, and the one that is exported."""
