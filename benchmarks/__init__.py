"""
What the host application pays: for a log call, for delivery, in memory, at import.

``python -m benchmarks`` measures this package beside whichever of its peers are
installed, against a sink on the loopback interface; ``python -m benchmarks.micro``
times the parts of our own hot path, for a comparison before and after a change.
"""
