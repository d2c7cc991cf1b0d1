"""The command line: images, compositions, and the models that can be downloaded."""
