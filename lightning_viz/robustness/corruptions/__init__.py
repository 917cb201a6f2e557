"""Common corruptions: noise, blur, weather and digital (Hendrycks and Dietterich, 2019)."""
