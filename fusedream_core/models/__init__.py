"""Pretrained networks: generator, CLIP, perceptual distance; and their files."""
