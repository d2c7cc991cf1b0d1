"""The command line: pictures, compositions, and the models that can be downloaded."""
