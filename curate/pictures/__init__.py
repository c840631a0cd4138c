"""Bytes become pixels and pixels become stored bytes: upright, sRGB, within limits."""
