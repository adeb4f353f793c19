#include "support/shim.h"
