"""Many processes and machines: learners and engines as Ray actors, driven by one process that alone writes the bank.

``connection`` finds or starts Ray. ``actors`` is what runs over there. ``crew`` hands work out and takes over what a
dead actor had. ``remote`` is the engine and the learner that an agent uses in place of its own.
"""
