"""The agent: samples cgroups ten times a second and writes the limits that come back."""
