"""Tests of Tailwise, all against the real thing."""
