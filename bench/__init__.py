"""Programs that measure Tailwise and what it predicts; nothing the product runs."""
