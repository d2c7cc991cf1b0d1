"""Paper section 3.1: augmentations, prompts, targets and the AugCLIP score."""
