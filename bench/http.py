"""The bench of HTTP clients, `python bench/http.py --help`; its code is in http_clients.py.

This file has the name of a package of the standard library, and the scripts of this folder have the folder first on
their path. So whoever imports `http` from here gets the standard library's.
"""

from __future__ import annotations

import importlib.util
import sys
import sysconfig
from importlib.machinery import PathFinder

if __name__ == "__main__":
    from http_clients import main

    main()
else:
    spec = PathFinder.find_spec(__name__, [sysconfig.get_path("stdlib")])
    assert spec is not None and spec.loader is not None
    sys.modules[__name__] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[__name__])
