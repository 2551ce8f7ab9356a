"""Sweeps over run folders: cells and the engines that compute them."""
