"""Samples, images, batches, augmentation and masking, and the data sets that are read by name."""
