"""Bytes: how functions, arguments, results and errors travel between processes."""
