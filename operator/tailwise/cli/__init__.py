"""Every entry point of the images and of kubectl-tailwise. May import everything."""
