"""What the memories are compared with: in-context learning and the controls, one file each, run by the same engine."""
