"""What values from outside have to be before anything keeps them."""
