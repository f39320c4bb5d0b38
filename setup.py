"""The parts that are compiled, and only where they were tested; all else stands in pyproject.toml."""

import platform
import sys
import sysconfig

from setuptools import Extension, setup

tested = (
    sys.platform == "linux"
    and platform.python_implementation() == "CPython"
    and (3, 11) <= sys.version_info[:2] <= (3, 15)
    and not sysconfig.get_config_var("Py_GIL_DISABLED")
)
ticks = Extension(
    "ox_otel._ticks",
    ["ox_otel/_ticks.c"],
    depends=["ox_otel/_state.h"],
    # where there is no compiler, or no headers, the package goes without
    optional=True,
    # all symbols are looked up when it is loaded: within a signal handler that would not be safe
    extra_link_args=["-Wl,-z,now"],
)

context = Extension(
    "ox_otel._context", ["ox_otel/_context.c"], depends=["ox_otel/_state.h"], optional=True
)

setup(ext_modules=[ticks, context] if tested else [])
