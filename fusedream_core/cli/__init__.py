"""The command line: images, compositions, and model downloads."""
