"""Training the small encoder: renderings of performances, losses, the loop, export."""
