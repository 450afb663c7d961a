"""The learner beside the server: its queue, its process, and the promotion of what it learns."""
