"""Files that are not part of the project: download, unpack, link and read them."""
