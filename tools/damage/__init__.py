"""Bad input: stores with damage of every kind, and what is said of them."""
