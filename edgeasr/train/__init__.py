"""Training: data, augmentation, loss and loop; needs the `train` extra and never runs on the device."""
