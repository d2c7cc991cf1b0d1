"""Paper section 3.1: augmentations, the AugCLIP score, and what it is asked for."""
