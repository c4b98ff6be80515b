"""Chappe against clients and servers that others wrote."""
