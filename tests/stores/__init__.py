"""Real model stores on loopback: what they are made from, how they are started, what is put into them."""
