"""What a comparison would do and need, said before anything is loaded; and the comparisons that are shipped."""
