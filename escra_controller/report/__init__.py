"""``escra report``: what limits and use were over a time, as one page that needs nothing else."""
