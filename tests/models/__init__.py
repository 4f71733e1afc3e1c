"""Models to test with: graphs of real exports without their weights, and what is known of them."""
