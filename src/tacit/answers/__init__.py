"""Answers: found in a response, compared, voted on; hard pairs are compared in a process that can be killed."""
