"""Measurements on the real kernel; ``python -m benchmarks NAME --json`` prints one JSON object."""
