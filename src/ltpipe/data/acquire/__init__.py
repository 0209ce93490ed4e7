"""Files from elsewhere: download, unpack, find, read."""
