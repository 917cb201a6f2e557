"""Views: Lightning callbacks that look at a training run and leave it alone."""
