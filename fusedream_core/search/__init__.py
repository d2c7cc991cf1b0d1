"""Paper section 3.2: the seed search for the k basis latents."""
