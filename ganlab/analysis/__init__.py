"""What is inside a trained GAN: see `ganlab.analyze`."""
