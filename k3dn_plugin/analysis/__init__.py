"""What is inside a restorer: kernels, disparity against blur, error maps."""
