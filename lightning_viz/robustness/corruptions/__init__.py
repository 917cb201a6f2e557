"""Common corruptions (Hendrycks and Dietterich, 2019)."""
