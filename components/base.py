"""The one place that names the image and how components are declared."""

from __future__ import annotations

import functools

from kfp import dsl

IMAGE = "ghcr.io/modelmend/modelmend-python:0.1.0"
"""Image of every component; holds the modelmend package (see ``components/Dockerfile``)."""

component = functools.partial(dsl.component, base_image=IMAGE, install_kfp_package=False)
"""``dsl.component`` with our image and nothing installed at run time."""
