"""Batch's API over HTTP: the only package that imports httpx."""
