"""Paper section 3.2: the seed search, which finds the k basis latents."""
