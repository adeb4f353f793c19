from pkg_info import *  # noqa: F401, F403
import pkg_info as __legacy__  # noqa: F401
