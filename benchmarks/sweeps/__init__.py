"""Many erasures: sweeps, strength curves and leaderboards."""
