"""Build of mmpool_ext; the metadata are in pyproject.toml."""

from setuptools import setup

setup()
