"""The resources: what may be made of what, and which state follows which."""
