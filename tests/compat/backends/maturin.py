from pkg_info import *  # noqa: F401, F403
