"""Captioners beside a bare generate loop and Ray's HTTP processor; kills on the way; fits."""
